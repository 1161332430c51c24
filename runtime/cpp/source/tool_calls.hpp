// Finds tool calls at the end of an answer. Corresponds to tool_calls.py in glm_runtime, for whole
// answers only.
#pragma once

#include <string_view>
#include <vector>

#include "call_dialects.hpp"

namespace glm {

struct FoundCalls {
  size_t text_length;  // bytes of the answer before the calls
  std::vector<CallText> calls;
};

// A call names one of `tools`, is complete, is outside of code fences, and has only other calls after
// it. Throws GLM_BAD_PROMPT if the answer is not UTF-8.
FoundCalls find_calls(std::string_view answer, const std::vector<ToolText>& tools, CallForm form);

}  // namespace glm
