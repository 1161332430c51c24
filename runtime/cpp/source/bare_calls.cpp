#include "call_dialects.hpp"
#include "json_text.hpp"

namespace glm {

std::optional<CallText> take_bare_call(const std::vector<ToolText>& tools,
                                       std::string_view* text) {
  constexpr char kSpaces[] = " \t\r\n";
  std::string_view rest = skip(*text, " \t");
  for (std::string_view part : {"{", "\"name\"", ":"}) {
    if (!take_start(&rest, part)) return std::nullopt;
    rest = skip(rest, kSpaces);
  }
  const ToolText* called = nullptr;
  for (const ToolText& tool : tools) {
    if (called == nullptr && take_start(&rest, quote_json(tool.name))) called = &tool;
  }
  if (called == nullptr) return std::nullopt;
  for (std::string_view part : {",", "\"arguments\"", ":"}) {
    rest = skip(rest, kSpaces);
    if (!take_start(&rest, part)) return std::nullopt;
  }
  rest = skip(rest, kSpaces);
  std::optional<std::string_view> object = take_object(&rest);
  rest = skip(rest, kSpaces);
  if (!object || !take_start(&rest, "}")) return std::nullopt;
  *text = rest;
  return CallText{called->name, std::string(*object)};
}

}  // namespace glm
