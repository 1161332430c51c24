// Finds tool calls at the end of an answer. Corresponds to tool_calls.py in glm_runtime, for whole
// answers only.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "chat_tools.hpp"

namespace glm {

struct FoundCalls {
  size_t text_length;  // bytes of the answer before the calls
  std::vector<CallText> calls;
};

// A call is the name of a tool on a line, and a JSON object. It is complete, outside of code fences,
// and has only other calls after it. Throws GLM_BAD_PROMPT if the answer is not UTF-8.
FoundCalls find_calls(std::string_view answer, const std::vector<std::string>& names);

}  // namespace glm
