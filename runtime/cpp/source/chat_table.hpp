// Renders a conversation without Jinja: chat_table.json has the text around the messages of each
// role. Corresponds to ChatTable in glm_export.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer.hpp"

namespace glm {

struct ChatMessage {
  std::string role, content;
};

// A prompt, and which of its bytes come from the messages and not from the template.
struct RenderedChat {
  std::string text;
  std::vector<TextRange> contents;
};

class ChatTable {
 public:
  // Parses a chat_table.json. Throws GLM_BAD_FOLDER or GLM_NEWER_FORMAT.
  explicit ChatTable(std::string_view json);

  // `thinking`: 1 asks for reasoning, 0 asks for none, -1 is the template's default.
  // Throws GLM_BAD_PROMPT if there is no message, or if the table has no rule for a role.
  // With `continues_answer` the text ends inside the last message, which must be an assistant's.
  RenderedChat render(std::vector<ChatMessage> messages, int thinking,
                      bool continues_answer = false) const;

 private:
  enum class Content { kAsIs, kStrip, kAnswer };  // kAnswer: without reasoning, stripped
  struct Thoughts {
    std::string opening, closing, empty;
  };
  struct Role {
    std::optional<std::string> first, prefix;  // text before the first, or a later message
    std::optional<std::string> repeated;       // the same after a message of this role
    std::string suffix, lead, no_thinking;
    Content content = Content::kAsIs;
    std::optional<Thoughts> thoughts;
    bool skips_empty = false;
  };
  struct Place {
    bool is_first, is_repeated, is_after_last_user, is_thinking_off, is_continued;
  };

  friend struct ChatTableReader;

  const std::string& find_prefix(const std::string& name, const Place& place, size_t index) const;
  void write(const Role& role, const std::string& prefix, const std::string& content,
             const Place& place, RenderedChat* chat) const;

  std::map<std::string, Role> roles_;
  std::string prompt_, prompt_thinking_, prompt_not_thinking_;  // text that asks for the answer
  bool is_system_first_ = false;
};

}  // namespace glm
