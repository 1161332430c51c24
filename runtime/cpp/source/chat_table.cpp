#include "chat_table.hpp"

#include <algorithm>

#include "errors.hpp"
#include "json_reader.hpp"
#include "utf8.hpp"
#include "white_space.hpp"

namespace glm {
namespace {

constexpr int64_t kFormatVersion = 1;
constexpr std::string_view kClosing = "</think>";

std::optional<std::string> read_optional(JsonReader* json) {
  if (json->take_null()) return std::nullopt;
  return json->string();
}

void require_utf8(const std::string& text) {
  size_t wrong = find_invalid_utf8(text);
  if (wrong == std::string::npos) return;
  throw Error(GLM_BAD_PROMPT, "a message is not valid UTF-8 at byte " + std::to_string(wrong) +
                                  "; check its encoding.");
}

}  // namespace

struct ChatTableReader {
  JsonReader json;
  ChatTable* table;
  std::string format;
  int64_t version = 0;
  int prompts_read = 0;

  void read() {
    json.object([&](const std::string& key) { read_key(key); });
    json.finish();
    if (format != "glm-chat-table") json.fail("format is not glm-chat-table");
    if (version < 1)
      json.fail("format_version is " + std::to_string(version) + ", but 1 or more is expected");
    if (version > kFormatVersion) {
      throw Error(GLM_NEWER_FORMAT,
                  "chat_table.json has format_version " + std::to_string(version) +
                      ", but this library reads versions up to 1; use a newer library.");
    }
    if (prompts_read < 3) json.fail("generation_prompt needs default, thinking and not_thinking");
  }

  void read_key(const std::string& key) {
    if (key == "format") {
      format = json.string();
    } else if (key == "format_version") {
      version = json.integer();
    } else if (key == "system_first") {
      table->is_system_first_ = json.boolean();
    } else if (key == "generation_prompt") {
      json.object([&](const std::string& name) { read_prompt(name); });
    } else if (key == "roles") {
      json.object([&](const std::string& name) { table->roles_[name] = read_role(); });
    } else {
      json.skip();
    }
  }

  void read_prompt(const std::string& name) {
    const std::map<std::string, std::string*> prompts = {
        {"default", &table->prompt_},
        {"thinking", &table->prompt_thinking_},
        {"not_thinking", &table->prompt_not_thinking_}};
    auto found = prompts.find(name);
    if (found == prompts.end()) return json.skip();
    *found->second = json.string();
    ++prompts_read;
  }

  ChatTable::Role read_role() {
    ChatTable::Role role;
    json.object([&](const std::string& key) {
      if (key == "first") {
        role.first = read_optional(&json);
      } else if (key == "prefix") {
        role.prefix = read_optional(&json);
      } else if (key == "suffix") {
        role.suffix = json.string();
      } else if (key == "content") {
        role.content = read_content();
      } else {
        json.skip();
      }
    });
    return role;
  }

  ChatTable::Content read_content() {
    std::string name = json.string();
    if (name == "as_is") return ChatTable::Content::kAsIs;
    if (name == "strip") return ChatTable::Content::kStrip;
    if (name == "answer") return ChatTable::Content::kAnswer;
    json.fail("content is '" + name + "' where as_is, strip or answer is expected");
  }
};

ChatTable::ChatTable(std::string_view text) {
  ChatTableReader{JsonReader(text, "chat_table.json"), this, "", 0, 0}.read();
}

std::string ChatTable::render(std::vector<ChatMessage> messages, int thinking) const {
  if (messages.empty()) {
    throw Error(GLM_BAD_PROMPT, "the conversation is empty; pass at least one message.");
  }
  auto is_system = [](const ChatMessage& message) { return message.role == "system"; };
  if (is_system_first_) std::stable_partition(messages.begin(), messages.end(), is_system);
  std::string text;
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto& [name, content] = messages[i];
    require_utf8(content);
    auto role = roles_.find(name);
    bool is_known = role != roles_.end();
    std::optional<std::string> before;
    if (is_known) before = i == 0 ? role->second.first : role->second.prefix;
    if (!before) {
      throw Error(GLM_BAD_PROMPT,
                  "the role '" + name + "' of message " + std::to_string(i + 1) +
                      (is_known ? " is not allowed at this position" : " is unknown") +
                      " in chat_table.json; use another role, or pass the prompt as text.");
    }
    std::string_view shown = content;
    if (role->second.content == Content::kAnswer) {
      size_t mark = shown.rfind(kClosing);
      if (mark != std::string_view::npos) shown.remove_prefix(mark + kClosing.size());
    }
    if (role->second.content != Content::kAsIs) shown = strip(shown);
    text.append(*before).append(shown).append(role->second.suffix);
  }
  return text + (thinking < 0 ? prompt_ : thinking > 0 ? prompt_thinking_ : prompt_not_thinking_);
}

}  // namespace glm
