// Texts that end an answer and must not be shown, even when they arrive in parts.
#pragma once

#include <string>
#include <vector>

namespace glm {

class StopStrings {
 public:
  // None of `stops` is empty.
  explicit StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  std::string add(const std::string& text);  // what is safe to show now
  std::string flush();                       // what was held back, when no more text comes
  bool is_found() const { return is_found_; }

 private:
  size_t count_held() const;

  std::vector<std::string> stops_;
  std::string held_;
  bool is_found_ = false;
};

}  // namespace glm
