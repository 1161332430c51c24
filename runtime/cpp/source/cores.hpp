// How many threads pay: physical cores that this process may use.
#pragma once

namespace glm {

// At least 1. On Linux and Windows affinity is respected, on Linux control groups too, and two
// hyper-threads of a core count once there, since they share its arithmetic units.
int count_usable_cores();

}  // namespace glm
