#include "white_space.hpp"

#include "unicode.hpp"
#include "utf8.hpp"

namespace glm {

std::string_view strip_front(std::string_view text) {
  size_t place = 0;
  while (place < text.size()) {
    size_t here = place;
    if (!is_python_space(read_code_point(text, &place))) return text.substr(here);
  }
  return {};
}

std::string_view strip_back(std::string_view text) {
  while (!text.empty()) {
    size_t start = text.size() - 1;
    while ((text[start] & 0xC0) == 0x80) --start;
    size_t place = start;
    if (!is_python_space(read_code_point(text, &place))) break;
    text = text.substr(0, start);
  }
  return text;
}

std::string_view strip(std::string_view text) { return strip_back(strip_front(text)); }

}  // namespace glm
