// Counts the physical cores that this process may use.
#pragma once

namespace glm {

// At least 1. Respects the processor affinity on Linux and Windows, and control groups on Linux.
// The hyper-threads of a core count once there, because they share its arithmetic units.
int count_usable_cores();

}  // namespace glm
