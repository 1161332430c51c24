// Removes white space from the ends of a text, like Python's str.strip. Texts must be valid UTF-8.
// Also says how a text ends.
#pragma once

#include <string_view>

namespace glm {

std::string_view strip_front(std::string_view text);
std::string_view strip_back(std::string_view text);
std::string_view strip(std::string_view text);

inline bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

}  // namespace glm
