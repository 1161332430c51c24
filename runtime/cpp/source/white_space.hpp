// Removes white space from the ends of a text, like Python's str.strip. Texts must be valid UTF-8.
#pragma once

#include <string_view>

namespace glm {

std::string_view strip_front(std::string_view text);
std::string_view strip_back(std::string_view text);
std::string_view strip(std::string_view text);

}  // namespace glm
