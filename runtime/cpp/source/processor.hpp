// Identifies the processor.
#pragma once

#include <string>

namespace glm {

// Name and features of the first processor; empty if the system does not report them.
std::string describe_processor();

}  // namespace glm
