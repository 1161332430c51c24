// Renders a conversation without Jinja: chat_table.json has the text around the messages of each
// role.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace glm {

struct ChatMessage {
  std::string role, content;
};

class ChatTable {
 public:
  // Parses a chat_table.json. Throws GLM_BAD_FOLDER or GLM_NEWER_FORMAT.
  explicit ChatTable(std::string_view json);

  // `thinking`: 1 asks for reasoning, 0 asks for none, -1 is the template's default.
  // Throws GLM_BAD_PROMPT if there is no message, or if the table has no rule for a role.
  std::string render(std::vector<ChatMessage> messages, int thinking) const;

 private:
  enum class Content { kAsIs, kStrip, kAnswer };  // kAnswer: without reasoning, stripped
  struct Role {
    std::optional<std::string> first, prefix;  // text before the first, or a later message
    std::string suffix;
    Content content = Content::kAsIs;
  };

  friend struct ChatTableReader;

  std::map<std::string, Role> roles_;
  std::string prompt_, prompt_thinking_, prompt_not_thinking_;  // text that asks for the answer
  bool is_system_first_ = false;
};

}  // namespace glm
