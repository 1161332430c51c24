// How many threads pay: physical cores that this process may use.
#pragma once

namespace glm {

// At least 1. On Linux affinity and control groups are respected, and two hyper-threads of a core
// count once, since they share its arithmetic units.
int count_usable_cores();

}  // namespace glm
