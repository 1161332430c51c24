#include "thinking.hpp"

#include <algorithm>

#include "white_space.hpp"

namespace glm {
namespace {

constexpr std::string_view kOpening = "<think>", kClosing = "</think>";

// Length in bytes of the longest end of the text with which the closing tag begins.
size_t count_held(std::string_view text) {
  size_t length = std::min(kClosing.size() - 1, text.size());
  while (text.substr(text.size() - length) != kClosing.substr(0, length)) --length;
  return length;
}

}  // namespace

AnswerPart ThinkingSplitter::add(const std::string& text) {
  held_ += text;
  AnswerPart part;
  if (!is_started_ && !find_opening()) return part;
  if (is_thinking_) part.reasoning = take_thinking();
  if (!is_thinking_) part.text = take_answer();
  return part;
}

AnswerPart ThinkingSplitter::flush() {
  AnswerPart part;
  bool is_empty = strip_front(held_).empty() && (is_thinking_ || is_blank_);
  if (!is_empty) (is_thinking_ ? part.reasoning : part.text) = held_;
  held_.clear();
  return part;
}

// Decides whether the text begins with the opening tag. Returns false while that is unknown.
bool ThinkingSplitter::find_opening() {
  std::string_view text = strip_front(held_);
  if (text.size() < kOpening.size() && kOpening.substr(0, text.size()) == text) return false;
  is_started_ = true;
  if (text.substr(0, kOpening.size()) != kOpening) return true;
  is_thinking_ = true;
  held_ = std::string(text.substr(kOpening.size()));
  return true;
}

// Returns reasoning up to the closing tag, or up to what may be the beginning of the tag.
std::string ThinkingSplitter::take_thinking() {
  if (is_blank_) held_ = std::string(strip_front(held_));
  size_t mark = held_.find(kClosing);
  if (mark != std::string::npos) {
    std::string thoughts(strip_back(std::string_view(held_).substr(0, mark)));
    is_thinking_ = false, is_blank_ = true, is_marked_ = true;
    held_ = held_.substr(mark + kClosing.size());
    return thoughts;
  }
  std::string_view safe = std::string_view(held_).substr(0, held_.size() - count_held(held_));
  std::string shown(strip_back(safe));
  held_ = held_.substr(shown.size());
  is_blank_ = is_blank_ && shown.empty();
  return shown;
}

// Returns the answer without blank lines at its beginning. Its first line keeps its indentation.
std::string ThinkingSplitter::take_answer() {
  if (is_blank_) {
    std::string_view text = strip_front(held_);
    if (text.empty()) return "";
    std::string_view blanks = std::string_view(held_).substr(0, held_.size() - text.size());
    size_t last_line = blanks.rfind('\n');
    bool is_on_first_line = last_line == std::string_view::npos;
    if (!is_on_first_line) {
      held_ = held_.substr(last_line + 1);
    } else if (is_marked_) {
      held_ = std::string(text);  // on the line of the tag, so this is not indentation
    }
  }
  is_blank_ = false;
  std::string answer;
  answer.swap(held_);
  return answer;
}

bool is_open_thinking(std::string_view prompt) {
  std::string_view text = strip_back(prompt);
  return text.size() >= kOpening.size() && text.substr(text.size() - kOpening.size()) == kOpening;
}

}  // namespace glm
