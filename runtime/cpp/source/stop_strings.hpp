// Finds strings that end an answer, also if they arrive in parts, and removes them from the text.
#pragma once

#include <string>
#include <vector>

namespace glm {

class StopStrings {
 public:
  // No string in `stops` may be empty.
  explicit StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  std::string add(const std::string& text);  // returns the text that is complete
  std::string flush();                       // returns the rest at the end of the answer
  bool is_found() const { return is_found_; }

 private:
  size_t count_held() const;

  std::vector<std::string> stops_;
  std::string held_;
  bool is_found_ = false;
};

}  // namespace glm
