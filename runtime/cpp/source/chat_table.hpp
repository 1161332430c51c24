// Conversation to prompt without Jinja: what a role's messages stand between, by chat_table.json.
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
  // Reads a chat_table.json. Throws GLM_BAD_FOLDER, or GLM_NEWER_FORMAT.
  explicit ChatTable(std::string_view json);

  // `thinking`: 1 asks for it, 0 for none, -1 leaves it to the template.
  // Throws GLM_BAD_PROMPT: no message, or a role that the table does not know there.
  std::string render(std::vector<ChatMessage> messages, int thinking) const;

 private:
  enum class Content { kAsIs, kStrip, kAnswer };  // kAnswer: behind the thinking, stripped
  struct Role {
    std::optional<std::string> first, prefix;  // before the first message, before a later one
    std::string suffix;
    Content content = Content::kAsIs;
  };

  friend struct ChatTableReader;

  std::map<std::string, Role> roles_;
  std::string prompt_, prompt_thinking_, prompt_not_thinking_;  // what asks for the answer
  bool is_system_first_ = false;
};

}  // namespace glm
