#include "stop_strings.hpp"

#include <algorithm>

namespace glm {

std::string StopStrings::add(const std::string& text) {
  held_ += text;
  size_t found = std::string::npos;
  for (const std::string& stop : stops_) found = std::min(found, held_.find(stop));
  is_found_ = is_found_ || found != std::string::npos;
  size_t shown_size = std::min(found, held_.size() - (is_found_ ? 0 : count_held()));
  std::string shown = held_.substr(0, shown_size);
  held_ = is_found_ ? "" : held_.substr(shown_size);
  return shown;
}

std::string StopStrings::flush() {
  std::string shown;
  shown.swap(held_);
  return shown;
}

// Length in bytes of the longest end of the text with which a stop string begins.
size_t StopStrings::count_held() const {
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > longest; --length) {
      if (held_.compare(held_.size() - length, length, stop, 0, length) == 0) longest = length;
    }
  }
  return longest;
}

}  // namespace glm
