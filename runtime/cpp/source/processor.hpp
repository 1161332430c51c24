// Which processor this is.
#pragma once

#include <string>

namespace glm {

// The first one's name and abilities; nothing where the system does not tell.
std::string describe_processor();

}  // namespace glm
