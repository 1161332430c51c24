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
  kBareJson   // GLM-Z1-Rumination: a JSON object with name and arguments
};

constexpr std::string_view kFence = "```";
constexpr std::string_view kCallTag = "<tool_call>";

// Each reads the call of one of `tools` and removes it from `text`, which is valid UTF-8; none if
// there is no call.
std::optional<CallText> take_name_line_call(const std::vector<ToolText>& tools,
                                            std::string_view* text);
std::optional<CallText> take_tagged_call(const std::vector<ToolText>& tools,
                                         std::string_view* text);
std::optional<CallText> take_bare_call(const std::vector<ToolText>& tools, std::string_view* text);

// Removes `start` from the front of `text`; returns false if the text begins otherwise.
bool take_start(std::string_view* text, std::string_view start);

// The text without characters at its front that are in `characters`.
std::string_view skip(std::string_view text, const char* characters);

// Removes the JSON object at the front of a text and returns it; none if there is no such object.
std::optional<std::string_view> take_object(std::string_view* text);

}  // namespace glm
