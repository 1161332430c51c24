#include "tool_calls.hpp"

#include <algorithm>

#include "errors.hpp"
#include "utf8.hpp"
#include "white_space.hpp"

namespace glm {
namespace {

class CallFinder {
 public:
  CallFinder(const std::vector<ToolText>& tools, CallForm form)
      : tools_(tools), form_(form), has_turns_(form == CallForm::kAllTools) {}

  FoundCalls find(std::string_view answer) {
    bool is_fenced = false;
    if (!may_end_call(strip_back(answer))) return {answer.size(), {}};
    for (size_t begin = 0; begin < answer.size();) {
      std::string_view rest = answer.substr(begin), line = rest;
      if (has_turns_ && take_start(&line, kTurn)) is_fenced = false;
      line = line.substr(0, find_line_end(line));
      bool is_fence = strip_front(line).substr(0, kFence.size()) == kFence;
      for (size_t place : list_places(line, is_fenced, is_fence)) {
        if (begin + place < released_) continue;
        std::vector<CallText> calls = read_calls(answer, begin + place);
        if (!calls.empty()) return {begin + place, std::move(calls)};
      }
      if (is_fence) is_fenced = !is_fenced;
      begin = static_cast<size_t>(line.data() - answer.data()) + line.size();
      if (answer.substr(begin, 1) == "\n") ++begin;
    }
    return {answer.size(), {}};
  }

 private:
  // Whether a complete call may end so; this saves the reading of thousands that are not complete.
  bool may_end_call(std::string_view text) const {
    if (form_ == CallForm::kAllTools) return true;
    if (form_ == CallForm::kTagged) return ends_with(text, kCallEnd);
    if (form_ != CallForm::kBareJson && ends_with(text, kFence)) return true;
    return ends_with(text, form_ == CallForm::kPython ? ")" : "}");
  }

  // Where a line ends: at its line end or before the next turn.
  size_t find_line_end(std::string_view text) const {
    size_t end = text.find('\n');
    return has_turns_ ? std::min(end, text.substr(0, end).find(kTurn)) : end;
  }

  // Where calls may begin in a line.
  std::vector<size_t> list_places(std::string_view line, bool is_fenced, bool is_fence) const {
    std::vector<size_t> places;
    if (is_fenced) return places;
    if (form_ != CallForm::kTagged) return {0};
    if (is_fence) return places;
    for (size_t place = line.find(kCallTag); place != std::string_view::npos;
         place = line.find(kCallTag, place + 1)) {
      places.push_back(place);
    }
    return places;
  }

  std::optional<CallText> take_call(bool is_first, std::string_view* text) const {
    switch (form_) {
      case CallForm::kTagged: return take_tagged_call(tools_, text);
      case CallForm::kBareJson: return take_bare_call(tools_, text);
      case CallForm::kPython: return take_python_call(tools_, text);
      case CallForm::kAllTools: return take_all_tools_call(tools_, is_first, text);
      case CallForm::kNameLine: break;
    }
    return take_name_line_call(tools_, false, text);
  }

  // The calls from a place to the end of the answer; none if there is anything else.
  std::vector<CallText> read_calls(std::string_view answer, size_t place) {
    std::vector<CallText> calls;
    std::string_view text = answer.substr(place);
    while (std::optional<CallText> call = take_call(text.size() == answer.size(), &text)) {
      calls.push_back(std::move(*call));
      if (is_blank(has_turns_, text)) return calls;
      released_ = answer.size() - text.size();
      std::string_view rest = strip_front(text);
      std::string_view blanks = text.substr(0, text.size() - rest.size());
      bool is_turn = has_turns_ && rest.substr(0, kTurn.size()) == kTurn;
      bool is_separate = is_turn || form_ == CallForm::kTagged;
      if (!is_separate && blanks.find('\n') == std::string_view::npos) break;
      text = rest;
    }
    return {};
  }

  const std::vector<ToolText>& tools_;
  CallForm form_;
  bool has_turns_;
  size_t released_ = 0;  // complete calls up to here are text, because text follows them
};

}  // namespace

FoundCalls find_calls(std::string_view answer, const std::vector<ToolText>& tools, CallForm form) {
  if (find_invalid_utf8(answer) != std::string_view::npos) {
    throw Error(GLM_BAD_PROMPT, "the answer is not valid UTF-8; pass the text of its pieces.");
  }
  return CallFinder(tools, form).find(answer);
}

}  // namespace glm
