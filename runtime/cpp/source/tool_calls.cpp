#include "tool_calls.hpp"

#include <set>

#include "errors.hpp"
#include "utf8.hpp"
#include "white_space.hpp"

namespace glm {
namespace {

// Where calls begin that are not followed by calls alone: reading them again would fail again.
using Failed = std::set<const char*>;

class CallFinder {
 public:
  CallFinder(const std::vector<ToolText>& tools, CallForm form) : tools_(tools), form_(form) {}

  FoundCalls find(std::string_view answer) {
    bool is_fenced = false;
    for (size_t begin = 0; begin < answer.size();) {
      std::string_view rest = answer.substr(begin);
      size_t end = rest.find('\n');
      std::string_view line = rest.substr(0, end);
      bool is_fence = strip_front(line).substr(0, kFence.size()) == kFence;
      for (size_t place : list_places(line, is_fenced, is_fence)) {
        std::vector<CallText> calls = read_calls(rest.substr(place));
        if (!calls.empty()) return {begin + place, std::move(calls)};
      }
      if (is_fence) is_fenced = !is_fenced;
      if (end == std::string_view::npos) break;
      begin += end + 1;
    }
    return {answer.size(), {}};
  }

 private:
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

  std::optional<CallText> take_call(std::string_view* text) const {
    if (form_ == CallForm::kTagged) return take_tagged_call(tools_, text);
    if (form_ == CallForm::kBareJson) return take_bare_call(tools_, text);
    return take_name_line_call(tools_, text);
  }

  // The calls that make up the whole text; none if there is anything else.
  std::vector<CallText> read_calls(std::string_view text) {
    std::vector<CallText> calls;
    std::vector<const char*> begins;
    while (true) {
      const char* begin = skip(text, " \t").data();
      std::optional<CallText> call;
      if (failed_.count(begin) == 0) call = take_call(&text);
      if (!call) break;
      calls.push_back(std::move(*call));
      begins.push_back(begin);
      std::string_view rest = strip_front(text);
      if (rest.empty()) return calls;
      std::string_view blanks = text.substr(0, text.size() - rest.size());
      bool is_separate = blanks.find('\n') != std::string_view::npos;
      if (!is_separate && form_ != CallForm::kTagged) break;
      text = rest;
    }
    failed_.insert(begins.begin(), begins.end());
    return {};
  }

  const std::vector<ToolText>& tools_;
  CallForm form_;
  Failed failed_;
};

}  // namespace

FoundCalls find_calls(std::string_view answer, const std::vector<ToolText>& tools, CallForm form) {
  if (find_invalid_utf8(answer) != std::string_view::npos) {
    throw Error(GLM_BAD_PROMPT, "the answer is not valid UTF-8; pass the text of its pieces.");
  }
  return CallFinder(tools, form).find(answer);
}

}  // namespace glm
