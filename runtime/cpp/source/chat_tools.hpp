// Tools and calls of a chat: read from OpenAI's JSON, and written by the rules of chat_table.json.
// Corresponds to chat_table_tools.py in glm_export.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "json_reader.hpp"
#include "tokenizer.hpp"

namespace glm {

// A tool: its name, and the JSON of the whole and of the inner function.
struct ToolText {
  std::string name, whole, function;
};

// A call: its tool's name, and its arguments as the text of a JSON object.
struct CallText {
  std::string name, arguments;
};

// Parse a JSON list of tools or calls in OpenAI's format. Throw GLM_BAD_PROMPT.
std::vector<ToolText> parse_tools(std::string_view json);
std::vector<CallText> parse_calls(std::string_view json);

// A prompt, and which of its bytes come from the caller and not from the template.
struct RenderedChat {
  std::string text;
  std::vector<TextRange> contents;

  void add_content(std::string_view part);
};

// The block of tools. It stands after `start`, with which every prompt begins.
struct ToolsRule {
  std::string start, before, between, after;
  std::optional<std::string> name_end;  // text between a tool's name and its JSON
  bool writes_function = false;         // the JSON of the inner function, not of the whole tool
  std::optional<int> indent;

  // Throws GLM_BAD_PROMPT if the prompt begins otherwise.
  void insert(const std::vector<ToolText>& tools, RenderedChat* chat) const;
};

struct CallsRule {
  bool is_message = false;  // each call is a message of its own
  std::optional<std::string> first;
  std::string prefix, name_end, between, suffix, empty;
  std::optional<std::string> middle;  // between a key and its value; none: one JSON object

  void write(const CallText& call, bool is_first, RenderedChat* chat) const;
};

ToolsRule read_tools_rule(JsonReader* json);
CallsRule read_calls_rule(JsonReader* json);

}  // namespace glm
