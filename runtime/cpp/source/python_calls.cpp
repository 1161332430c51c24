#include "call_dialects.hpp"
#include "json_text.hpp"
#include "python_literals.hpp"

namespace glm {
namespace {

constexpr std::string_view kFunction = "tool_call(";

}  // namespace

std::optional<CallText> take_python_call(const std::vector<ToolText>& tools,
                                         std::string_view* text) {
  std::string_view rest = *text;
  std::optional<NameLine> head = take_name_line(tools, "", {kFunction}, &rest);
  if (!head) return std::nullopt;
  rest.remove_prefix(kFunction.size());
  std::optional<std::string> json = take_python_arguments({}, "", "{", &rest);
  if (!json || (head->has_fence && !close_fence(false, &rest))) return std::nullopt;
  *text = rest;
  return CallText{head->tool->name, std::move(*json)};
}

std::string write_python_call(const std::string& arguments) {
  std::optional<Entries> given = read_entries(arguments);
  if (!given) return arguments;
  std::string text;
  for (const auto& [key, value] : *given) {
    text += (text.empty() ? "" : ", ") + key + "=" + write_python_literal(value, '\'');
  }
  std::string fence(kFence);
  return fence + "python\n" + std::string(kFunction) + text + ")\n" + fence;
}

}  // namespace glm
