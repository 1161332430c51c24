// Tools and calls of a chat: read from OpenAI's JSON, and written by the rules of chat_table.json.
// Corresponds to chat_table_tools.py in glm_export.
#pragma once

#include <map>
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
  bool is_built_in = false;  // a tool of GLM-4 All Tools, such as {"type": "python"}
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
  std::string item_start;                       // the end of `before` and `between`, of a function
  std::map<std::string, std::string> built_in;  // descriptions of built-in tools, by their names

  // Throws GLM_BAD_PROMPT if the prompt begins otherwise, or if there is no text for a built-in tool.
  void insert(const std::vector<ToolText>& tools, RenderedChat* chat) const;

  bool is_divided() const;  // whether `item_start` and `built_in` fit the other texts

 private:
  void write(const ToolText& tool, RenderedChat* chat) const;
};

// Throws GLM_BAD_PROMPT: the table has no text for this built-in tool.
[[noreturn]] void refuse_built_in(const std::string& name);

// Tools as ChatGLM3 reads them: a JSON list below the system message.
std::string describe_tools(const std::vector<ToolText>& tools);

struct CallsRule {
  bool is_message = false;  // each call is a message of its own
  bool is_python = false;   // the arguments are written as ChatGLM3's
  std::optional<std::string> first;
  std::string prefix, name_end, between, suffix, empty;
  std::optional<std::string> middle;  // between a key and its value; none: one JSON object

  void write(const CallText& call, bool is_first, RenderedChat* chat) const;
};

ToolsRule read_tools_rule(JsonReader* json);
CallsRule read_calls_rule(JsonReader* json);

}  // namespace glm
