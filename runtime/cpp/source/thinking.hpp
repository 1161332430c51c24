// Takes an answer apart into what the model thought and what it says, while text arrives; as
// glm_runtime's thinking.py.
#pragma once

#include <string>
#include <string_view>

namespace glm {

// What became known with some text.
struct AnswerPart {
  std::string text, reasoning;
};

class ThinkingSplitter {
 public:
  // `is_open`: the prompt ends inside the thinking.
  explicit ThinkingSplitter(bool is_open) : is_thinking_(is_open), is_started_(is_open) {}

  AnswerPart add(const std::string& text);
  AnswerPart flush();  // what was held back, when no more text comes
  bool is_thinking() const { return is_thinking_; }

 private:
  bool find_opening();
  std::string take_thinking();
  std::string take_answer();

  bool is_thinking_, is_started_;  // started: past the place where the opening mark may stand
  bool is_blank_ = true;           // nothing but white space since the last mark
  bool is_marked_ = false;         // a mark stands before the answer
  std::string held_;
};

// Whether a prompt ends inside the thinking.
bool is_open_thinking(std::string_view prompt);

}  // namespace glm
