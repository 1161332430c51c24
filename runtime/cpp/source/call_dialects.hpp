// Reads one tool call at the beginning of a text, in each dialect that the library knows. Corresponds
// to text/dialects in glm_runtime.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "chat_tools.hpp"

namespace glm {

enum class CallForm {
  kNameLine,  // GLM-4-0414: the name on a line, and a JSON object
  kTagged,    // GLM-4.5: the parts between tags
  kBareJson,  // GLM-Z1-Rumination: a JSON object with name and arguments
  kPython,    // ChatGLM3: the name on a line, and a Python call
  kAllTools   // GLM-4-9B-chat: as kNameLine, and code, a prompt, or a call of the browser
};

constexpr std::string_view kFence = "```";
constexpr std::string_view kCallTag = "<tool_call>", kCallEnd = "</tool_call>";
// U+FDD2, which is no character of a text, stands for the token that begins a turn.
constexpr std::string_view kTurn = "\xEF\xB7\x92";

// Each reads the call of one of `tools` and removes it from `text`, which is valid UTF-8; none if
// there is no call. `has_turns` says that kTurn counts as white space.
std::optional<CallText> take_name_line_call(const std::vector<ToolText>& tools, bool has_turns,
                                            std::string_view* text);
std::optional<CallText> take_tagged_call(const std::vector<ToolText>& tools,
                                         std::string_view* text);
std::optional<CallText> take_bare_call(const std::vector<ToolText>& tools, std::string_view* text);
std::optional<CallText> take_python_call(const std::vector<ToolText>& tools,
                                         std::string_view* text);
// `is_first` says that the text is the beginning of the answer; kTurn begins the other turns.
std::optional<CallText> take_all_tools_call(const std::vector<ToolText>& tools, bool is_first,
                                            std::string_view* text);

// The tool whose name stands on a line of its own, and whether a code fence opens below it.
struct NameLine {
  const ToolText* tool;
  bool has_fence;
};

// Removes the name of a function of `tools`, or of the built-in tool with the name `built_in`, and
// what stands up to the first of `openings`; none if there is no such line.
std::optional<NameLine> take_name_line(const std::vector<ToolText>& tools,
                                       std::string_view built_in,
                                       const std::vector<std::string_view>& openings,
                                       std::string_view* text);

// Removes the fence after a call that began with one. Returns false if something else stands there;
// the end of the answer may.
bool close_fence(bool has_turns, std::string_view* text);

// Whether nothing but white space is left.
bool is_blank(bool has_turns, std::string_view text);

// Removes `start` from the front of `text`; returns false if the text begins otherwise.
bool take_start(std::string_view* text, std::string_view start);

// The text without characters at its front that are in `characters`.
std::string_view skip(std::string_view text, const char* characters);

// Removes the JSON object at the front of a text and returns it; none if there is no such object.
std::optional<std::string_view> take_object(std::string_view* text);

// Writes a call of an earlier answer in the model's own form, from arguments as JSON text. Arguments
// of another form are returned as they are.
std::string write_python_call(const std::string& arguments);
std::string write_built_in_call(const CallText& call);

}  // namespace glm
