// Renders a conversation without Jinja: chat_table.json has the text around the messages of each
// role. Corresponds to ChatTable in glm_export.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "call_dialects.hpp"
#include "chat_tools.hpp"

namespace glm {

struct ChatMessage {
  std::string role, content;
  std::vector<CallText> calls = {};
  std::string metadata = {};
};

struct Chat {
  std::vector<ChatMessage> messages;
  std::vector<ToolText> tools = {};
  int thinking = -1;              // 1 asks for reasoning, 0 for none, -1 is the template's default
  bool continues_answer = false;  // the text ends inside the last message, an assistant's
};

class ChatTable {
 public:
  // Parses a chat_table.json. Throws GLM_BAD_FOLDER or GLM_NEWER_FORMAT.
  explicit ChatTable(std::string_view json);

  // How the model writes the calls of its answers, by how the template writes them.
  CallForm call_form() const;

  // Throws GLM_BAD_PROMPT if there is no message, or if the table has no rule for something.
  RenderedChat render(Chat chat) const;

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
  void write(const Role& role, const std::string& prefix, const ChatMessage& message,
             const Place& place, RenderedChat* chat) const;

  void write_prefix(const std::string& prefix, const ChatMessage& message,
                    RenderedChat* chat) const;
  void write_calls(const ChatMessage& message, const Place& place, RenderedChat* chat) const;
  bool skips_empty(const std::string& role) const;
  // Writes tools into the system message, and calls in the model's own form.
  void adapt(Chat* chat) const;
  void adapt_calls(const std::vector<ToolText>& tools, std::vector<ChatMessage>* messages) const;
  std::vector<ChatMessage> part_calls(std::vector<ChatMessage> messages) const;

  std::map<std::string, Role> roles_;
  std::optional<ToolsRule> tools_;
  std::optional<CallsRule> calls_;
  std::optional<std::string> system_tools_;  // a system message above a list of tools
  std::map<std::string, std::string> metadata_;  // ends of prefixes, before which metadata stand
  std::string prompt_, prompt_thinking_, prompt_not_thinking_;  // text that asks for the answer
  bool is_system_first_ = false;
};

}  // namespace glm
