// Separates the reasoning from the answer while text arrives. Corresponds to thinking.py in
// glm_runtime.
#pragma once

#include <string>
#include <string_view>

namespace glm {

// The text and reasoning of one step.
struct AnswerPart {
  std::string text, reasoning;
};

class ThinkingSplitter {
 public:
  // `is_open`: the prompt ends inside the reasoning.
  explicit ThinkingSplitter(bool is_open) : is_thinking_(is_open), is_started_(is_open) {}

  AnswerPart add(const std::string& text);
  AnswerPart flush();  // returns the rest at the end of the answer
  bool is_thinking() const { return is_thinking_; }

 private:
  bool find_opening();
  std::string take_thinking();
  std::string take_answer();

  bool is_thinking_, is_started_;  // started: the opening tag cannot follow any more
  bool is_blank_ = true;           // only white space since the last tag
  bool is_marked_ = false;         // a closing tag precedes the answer
  std::string held_;
};

// Returns whether a prompt ends inside the reasoning.
bool is_open_thinking(std::string_view prompt);

}  // namespace glm
