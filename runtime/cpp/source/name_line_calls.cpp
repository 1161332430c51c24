#include "call_dialects.hpp"
#include "errors.hpp"
#include "unicode.hpp"
#include "utf8.hpp"
#include "white_space.hpp"

namespace glm {
namespace {

std::string_view skip_letters(std::string_view text) {
  size_t place = 0;
  while (place < text.size()) {
    size_t here = place;
    if (!is_letter(read_code_point(text, &place))) return text.substr(here);
  }
  return {};
}

// Removes what stands from the end of the name to one of `openings`: a line end, blank lines, and one
// fence. Returns false if something else stands there.
bool take_gap(const std::vector<std::string_view>& openings, std::string_view* text,
              bool* has_fence) {
  std::string_view rest = skip(*text, " \t");
  take_start(&rest, "\r");
  if (!take_start(&rest, "\n")) return false;
  rest = skip(rest, " \t\r\n");
  *has_fence = take_start(&rest, kFence);
  if (*has_fence) {
    rest = skip(skip_letters(rest), " \t\r");
    if (!take_start(&rest, "\n")) return false;
    rest = skip(rest, " \t\r\n");
  }
  *text = rest;
  for (std::string_view opening : openings) {
    if (rest.substr(0, opening.size()) == opening) return true;
  }
  return false;
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

bool is_blank(bool has_turns, std::string_view text) {
  do text = strip_front(text);
  while (has_turns && take_start(&text, kTurn));
  return text.empty();
}

bool close_fence(bool has_turns, std::string_view* text) {
  if (is_blank(has_turns, *text)) return true;
  std::string_view after = strip_front(*text);
  if (!take_start(&after, kFence)) return false;
  *text = after;
  return true;
}

std::optional<std::string_view> take_object(std::string_view* text) {
  if (text->empty() || (*text)[0] != '{') return std::nullopt;
  try {
    JsonReader json = JsonReader::of_call(*text);
    std::string_view object = json.raw();
    text->remove_prefix(object.size());
    return object;
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::optional<NameLine> take_name_line(const std::vector<ToolText>& tools,
                                       std::string_view built_in,
                                       const std::vector<std::string_view>& openings,
                                       std::string_view* text) {
  std::string_view line = skip(*text, " \t");
  for (const ToolText& tool : tools) {
    bool is_wanted = tool.is_built_in ? tool.name == built_in : built_in.empty();
    std::string_view rest = line;
    bool has_fence = false;
    if (!is_wanted || !take_start(&rest, tool.name)) continue;
    if (!take_gap(openings, &rest, &has_fence)) continue;
    *text = rest;
    return NameLine{&tool, has_fence};
  }
  return std::nullopt;
}

std::optional<CallText> take_name_line_call(const std::vector<ToolText>& tools, bool has_turns,
                                            std::string_view* text) {
  std::string_view rest = *text;
  std::optional<NameLine> head = take_name_line(tools, "", {"{"}, &rest);
  if (!head) return std::nullopt;
  std::optional<std::string_view> object = take_object(&rest);
  if (!object || (head->has_fence && !close_fence(has_turns, &rest))) return std::nullopt;
  *text = rest;
  return CallText{head->tool->name, std::string(*object)};
}

}  // namespace glm
