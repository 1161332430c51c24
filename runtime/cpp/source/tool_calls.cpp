#include "tool_calls.hpp"

#include <set>

#include "errors.hpp"
#include "utf8.hpp"
#include "white_space.hpp"

namespace glm {
namespace {

constexpr std::string_view kFence = "```";

bool starts_with(std::string_view text, std::string_view start) {
  return text.substr(0, start.size()) == start;
}

std::string_view skip(std::string_view text, const char* characters) {
  size_t begin = text.find_first_not_of(characters);
  return begin == std::string_view::npos ? std::string_view() : text.substr(begin);
}

struct Head {
  bool is_found = false, has_fence = false;
  std::string_view rest;  // from the brace on
};

// Reads from the end of the name to the brace: a line end, blank lines, and one fence.
Head read_gap(std::string_view text) {
  text = skip(text, " \t");
  if (starts_with(text, "\r")) text.remove_prefix(1);
  if (!starts_with(text, "\n")) return {};
  text = skip(text, " \t\r\n");
  Head head;
  head.has_fence = starts_with(text, kFence);
  if (head.has_fence) {
    size_t end = text.find('\n');
    if (end == std::string_view::npos) return {};
    std::string_view info = text.substr(kFence.size(), end - kFence.size());
    size_t length = info.find_last_not_of(" \t\r");
    info = info.substr(0, length == std::string_view::npos ? 0 : length + 1);
    for (char c : info) {
      if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z')) return {};
    }
    text = skip(text.substr(end), " \t\r\n");
  }
  head.is_found = starts_with(text, "{");
  head.rest = text;
  return head;
}

// Reads one call at the beginning of `text` and removes it; returns false if there is none.
bool take_call(const std::vector<std::string>& names, std::string_view* text,
               std::vector<CallText>* calls) {
  std::string_view line = skip(*text, " \t");
  for (const std::string& name : names) {
    if (!starts_with(line, name)) continue;
    Head head = read_gap(line.substr(name.size()));
    if (!head.is_found) continue;
    try {
      JsonReader json(head.rest, "a call", true);
      std::string_view arguments = json.raw();
      calls->push_back({name, std::string(arguments)});
      head.rest.remove_prefix(arguments.size());
    } catch (const Error&) {
      return false;
    }
    std::string_view after = strip_front(head.rest);
    if (head.has_fence && !after.empty()) {
      if (!starts_with(after, kFence)) return false;
      head.rest = after.substr(kFence.size());
    }
    *text = head.rest;
    return true;
  }
  return false;
}

// Where calls begin that are not followed by calls alone: reading them again would fail again.
using Failed = std::set<const char*>;

// The calls that make up the whole text; none if there is anything else.
std::vector<CallText> read_calls(std::string_view text, const std::vector<std::string>& names,
                                 Failed* failed) {
  std::vector<CallText> calls;
  std::vector<const char*> begins;
  while (true) {
    const char* begin = skip(text, " \t").data();
    if (failed->count(begin) > 0 || !take_call(names, &text, &calls)) break;
    begins.push_back(begin);
    std::string_view rest = strip_front(text);
    if (rest.empty()) return calls;
    if (text.substr(0, text.size() - rest.size()).find('\n') == std::string_view::npos) break;
    text = rest;
  }
  failed->insert(begins.begin(), begins.end());
  return {};
}

}  // namespace

FoundCalls find_calls(std::string_view answer, const std::vector<std::string>& names) {
  if (find_invalid_utf8(answer) != std::string_view::npos) {
    throw Error(GLM_BAD_PROMPT, "the answer is not valid UTF-8; pass the text of its pieces.");
  }
  bool is_fenced = false;
  Failed failed;
  for (size_t begin = 0; begin < answer.size();) {
    std::string_view rest = answer.substr(begin);
    if (!is_fenced) {
      std::vector<CallText> calls = read_calls(rest, names, &failed);
      if (!calls.empty()) return {begin, std::move(calls)};
    }
    size_t end = rest.find('\n');
    if (starts_with(strip_front(rest.substr(0, end)), kFence)) is_fenced = !is_fenced;
    if (end == std::string_view::npos) break;
    begin += end + 1;
  }
  return {answer.size(), {}};
}

}  // namespace glm
