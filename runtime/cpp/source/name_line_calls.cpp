#include "call_dialects.hpp"
#include "errors.hpp"
#include "white_space.hpp"

namespace glm {
namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Removes what stands from the end of the name to the brace: a line end, blank lines, and one fence.
// Returns false if something else stands there.
bool take_gap(std::string_view* text, bool* has_fence) {
  std::string_view rest = skip(*text, " \t");
  take_start(&rest, "\r");
  if (!take_start(&rest, "\n")) return false;
  rest = skip(rest, " \t\r\n");
  *has_fence = take_start(&rest, kFence);
  if (*has_fence) {
    while (!rest.empty() && is_letter(rest[0])) rest.remove_prefix(1);
    rest = skip(rest, " \t\r");
    if (!take_start(&rest, "\n")) return false;
    rest = skip(rest, " \t\r\n");
  }
  *text = rest;
  return !rest.empty() && rest[0] == '{';
}

// Removes the fence after a call; only the end of the answer may stand in its place.
bool close_fence(std::string_view* text) {
  std::string_view after = strip_front(*text);
  if (after.empty()) return true;
  if (!take_start(&after, kFence)) return false;
  *text = after;
  return true;
}

}  // namespace

bool take_start(std::string_view* text, std::string_view start) {
  if (text->substr(0, start.size()) != start) return false;
  text->remove_prefix(start.size());
  return true;
}

std::string_view skip(std::string_view text, const char* characters) {
  size_t begin = text.find_first_not_of(characters);
  return begin == std::string_view::npos ? text.substr(text.size()) : text.substr(begin);
}

std::optional<std::string_view> take_object(std::string_view* text) {
  if (text->empty() || (*text)[0] != '{') return std::nullopt;
  try {
    JsonReader json(*text, "a call", true);
    std::string_view object = json.raw();
    text->remove_prefix(object.size());
    return object;
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::optional<CallText> take_name_line_call(const std::vector<ToolText>& tools,
                                            std::string_view* text) {
  std::string_view line = skip(*text, " \t");
  for (const ToolText& tool : tools) {
    std::string_view rest = line;
    bool has_fence = false;
    if (!take_start(&rest, tool.name) || !take_gap(&rest, &has_fence)) continue;
    std::optional<std::string_view> object = take_object(&rest);
    if (!object || (has_fence && !close_fence(&rest))) return std::nullopt;
    *text = rest;
    return CallText{tool.name, std::string(*object)};
  }
  return std::nullopt;
}

}  // namespace glm
