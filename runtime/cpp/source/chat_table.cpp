#include "chat_table.hpp"

#include <algorithm>
#include <deque>

#include "errors.hpp"
#include "json_reader.hpp"
#include "utf8.hpp"
#include "white_space.hpp"

namespace glm {
namespace {

constexpr int64_t kFormatVersion = 2;
constexpr std::string_view kOpening = "<think>", kClosing = "</think>";
constexpr std::string_view kPythonStart = "[gMASK]sop";  // of ChatGLM3's prompts

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

// The text between the tags of a message that has a closing tag, without white space around it.
std::string_view find_reasoning(std::string_view content) {
  size_t end = content.find(kClosing);
  if (end == std::string_view::npos) return {};
  std::string_view before = content.substr(0, end);
  size_t start = before.rfind(kOpening);
  return strip(start == std::string_view::npos ? before : before.substr(start + kOpening.size()));
}

void require_answer(const ChatMessage& message) {
  if (!message.calls.empty()) {
    throw Error(GLM_BAD_PROMPT,
                "the last message has tool calls where the beginning of an answer is to be "
                "continued, which is text; leave the calls out, or add their results and do not "
                "continue.");
  }
  if (message.role == "assistant" && !strip(message.content).empty()) return;
  throw Error(GLM_BAD_PROMPT,
              "the last message is not the beginning of an answer where one is to be continued; "
              "end the messages with one of the role 'assistant' that is not empty.");
}

[[noreturn]] void refuse_metadata(const ChatMessage& message) {
  throw Error(GLM_BAD_PROMPT, "chat_table.json has no rule for the metadata '" + message.metadata +
                                  "' of the role '" + message.role +
                                  "' here; leave them out, or write them into the content.");
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
                      ", but this library reads versions up to " +
                      std::to_string(kFormatVersion) + "; use a newer library.");
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
    } else if (key == "tools") {
      table->tools_ = read_tools_rule(&json);
    } else if (key == "calls" || key == "python_calls") {
      table->calls_ = read_calls_rule(&json);
      table->calls_->is_python = key == "python_calls";
    } else if (key == "system_tools") {
      table->system_tools_ = json.string();
    } else if (key == "metadata") {
      json.object([&](const std::string& name) { table->metadata_[name] = json.string(); });
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
      const std::map<std::string, std::optional<std::string>*> prefixes = {
          {"first", &role.first}, {"prefix", &role.prefix}, {"repeated", &role.repeated}};
      const std::map<std::string, std::string*> texts = {
          {"suffix", &role.suffix}, {"lead", &role.lead}, {"no_thinking", &role.no_thinking}};
      if (auto found = prefixes.find(key); found != prefixes.end()) {
        *found->second = read_optional(&json);
      } else if (auto text = texts.find(key); text != texts.end()) {
        *text->second = json.string();
      } else if (key == "content") {
        role.content = read_content();
      } else if (key == "thoughts") {
        role.thoughts = read_thoughts();
      } else if (key == "skips_empty") {
        role.skips_empty = json.boolean();
      } else {
        json.skip();
      }
    });
    return role;
  }

  ChatTable::Thoughts read_thoughts() {
    ChatTable::Thoughts thoughts;
    json.object([&](const std::string& key) {
      if (key == "opening") {
        thoughts.opening = json.string();
      } else if (key == "closing") {
        thoughts.closing = json.string();
      } else if (key == "empty") {
        thoughts.empty = json.string();
      } else {
        json.skip();
      }
    });
    return thoughts;
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

CallForm ChatTable::call_form() const {
  std::string_view prefix = calls_ ? std::string_view(calls_->prefix) : std::string_view();
  if (ends_with(prefix, "{\"name\": \"")) return CallForm::kBareJson;
  if (tools_ && !tools_->built_in.empty()) return CallForm::kAllTools;
  bool is_tagged = calls_ && calls_->middle && prefix.find(kCallTag) != std::string_view::npos;
  if (is_tagged) return CallForm::kTagged;
  auto user = roles_.find("user");
  bool is_python = user != roles_.end() && user->second.first &&
                   user->second.first->compare(0, kPythonStart.size(), kPythonStart) == 0;
  return is_python ? CallForm::kPython : CallForm::kNameLine;
}

RenderedChat ChatTable::render(Chat given) const {
  std::vector<ChatMessage>& messages = given.messages;
  if (messages.empty()) {
    throw Error(GLM_BAD_PROMPT, "the conversation is empty; pass at least one message.");
  }
  for (const ChatMessage& message : messages) {
    require_utf8(message.content);
    require_utf8(message.metadata);
  }
  if (given.continues_answer) require_answer(messages.back());
  adapt(&given);
  auto is_system = [](const ChatMessage& message) { return message.role == "system"; };
  if (is_system_first_) std::stable_partition(messages.begin(), messages.end(), is_system);
  messages = part_calls(std::move(messages));
  size_t last_user = messages.size();  // one place after it, or 0
  while (last_user > 0 && messages[last_user - 1].role != "user") --last_user;
  RenderedChat chat;
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& name = messages[i].role;
    bool is_continued = given.continues_answer && i + 1 == messages.size();
    Place place{i == 0, i > 0 && messages[i - 1].role == name, i >= last_user, given.thinking == 0,
                is_continued};
    bool is_call = calls_ && calls_->is_message && !messages[i].calls.empty();
    bool is_skipped = is_call && messages[i].calls[0].arguments.empty() && skips_empty(name);
    if (is_call && !is_skipped) {
      write_calls(messages[i], place, &chat);
    } else {
      const std::string& prefix = find_prefix(name, place, i);
      write(roles_.at(name), prefix, messages[i], place, &chat);
    }
  }
  if (!given.tools.empty() && !tools_ && !system_tools_) {
    throw Error(GLM_BAD_PROMPT,
                "chat_table.json has no rule for tools, because the chat template does not write "
                "them; leave the tools out, or describe them in a system message.");
  }
  if (!given.tools.empty() && tools_) tools_->insert(given.tools, &chat);
  if (given.continues_answer) return chat;
  const std::string& asked = given.thinking > 0 ? prompt_thinking_ : prompt_not_thinking_;
  chat.text += given.thinking < 0 ? prompt_ : asked;
  return chat;
}

bool ChatTable::skips_empty(const std::string& name) const {
  auto found = roles_.find(name);
  return found != roles_.end() && found->second.skips_empty;
}

void ChatTable::adapt(Chat* chat) const {
  adapt_calls(chat->tools, &chat->messages);
  if (chat->tools.empty() || tools_ || !system_tools_) return;
  bool has_system = chat->messages[0].role == "system";
  if (!has_system) chat->messages.insert(chat->messages.begin(), {"system", *system_tools_});
  chat->messages[0].content += "\n" + describe_tools(chat->tools);
}

// Names the results of built-in tools, which follow their calls in the same order.
void ChatTable::adapt_calls(const std::vector<ToolText>& tools,
                            std::vector<ChatMessage>* messages) const {
  auto is_built_in = [&](const std::string& name) {
    auto has_name = [&](const ToolText& tool) { return !tool.is_built_in && tool.name == name; };
    bool is_function = std::any_of(tools.begin(), tools.end(), has_name);
    return tools_ && tools_->built_in.count(name) > 0 && !is_function;
  };
  std::deque<std::string> waiting;  // names of called tools without a result
  for (ChatMessage& message : *messages) {
    for (CallText& call : message.calls) {
      waiting.push_back(call.name);
      if (is_built_in(call.name)) call.arguments = write_built_in_call(call);
      if (calls_ && calls_->is_python) call.arguments = write_python_call(call.arguments);
    }
    if (message.role != "tool" || waiting.empty()) continue;
    std::string name = std::move(waiting.front());
    waiting.pop_front();
    if (!is_built_in(name) || !message.metadata.empty()) continue;
    if (name == "simple_browser") message.metadata = "browser_result";
    if (name == "cogview") message.metadata = "cogview_result";
  }
}

// Where each call is a message: the content first, if there is any, and then the calls.
std::vector<ChatMessage> ChatTable::part_calls(std::vector<ChatMessage> messages) const {
  if (!calls_ || !calls_->is_message) return messages;
  std::vector<ChatMessage> parts;
  for (ChatMessage& message : messages) {
    if (message.calls.empty() || !message.content.empty()) {
      parts.push_back({message.role, message.content, {}, message.metadata});
    }
    for (CallText& call : message.calls) parts.push_back({message.role, "", {std::move(call)}});
  }
  return parts;
}

void ChatTable::write_calls(const ChatMessage& message, const Place& place,
                            RenderedChat* chat) const {
  if (message.calls.empty()) return;
  if (!calls_) {
    throw Error(GLM_BAD_PROMPT,
                "chat_table.json has no rule for calls; write them into the content.");
  }
  for (const CallText& call : message.calls) calls_->write(call, place.is_first, chat);
}

const std::string& ChatTable::find_prefix(const std::string& name, const Place& place,
                                          size_t index) const {
  auto found = roles_.find(name);
  bool is_known = found != roles_.end();
  if (is_known && place.is_first && found->second.first) return *found->second.first;
  if (is_known && !place.is_first && found->second.prefix) {
    bool is_repeated = place.is_repeated && found->second.repeated;
    return is_repeated ? *found->second.repeated : *found->second.prefix;
  }
  throw Error(GLM_BAD_PROMPT, "the role '" + name + "' of message " + std::to_string(index + 1) +
                                  (is_known ? " is not allowed at this position" : " is unknown") +
                                  " in chat_table.json; use another role, or pass the prompt as "
                                  "text.");
}

// Metadata stand within the prefix.
void ChatTable::write_prefix(const std::string& prefix, const ChatMessage& message,
                             RenderedChat* chat) const {
  auto end = metadata_.find(message.role);
  bool has_rule = end != metadata_.end() && ends_with(prefix, end->second);
  if (message.metadata.empty()) {
    chat->text += prefix;
    return;
  }
  if (!has_rule) refuse_metadata(message);
  chat->text.append(prefix, 0, prefix.size() - end->second.size());
  chat->add_content(message.metadata);
  chat->text += end->second;
}

void ChatTable::write(const Role& role, const std::string& prefix, const ChatMessage& message,
                      const Place& place, RenderedChat* chat) const {
  const std::string& content = message.content;
  std::string* text = &chat->text;
  if (role.skips_empty && content.empty()) {
    // A name of a tool would be lost without a word.
    if (message.role == "assistant" && !strip(message.metadata).empty()) refuse_metadata(message);
    // What starts the conversation stays: the first prefix without that of a later message.
    std::string_view start = prefix;
    if (role.prefix && ends_with(start, *role.prefix)) start.remove_suffix(role.prefix->size());
    if (place.is_first) text->append(start);
    return;
  }
  write_prefix(prefix, message, chat);
  if (role.thoughts) {
    std::string_view reasoning = find_reasoning(content);
    bool is_shown = place.is_after_last_user && !reasoning.empty();
    text->append(is_shown ? role.thoughts->opening : role.thoughts->empty);
    if (is_shown) chat->add_content(reasoning);
    if (is_shown) text->append(role.thoughts->closing);
  }
  std::string_view shown = content;
  if (role.content == Content::kAnswer) {
    size_t mark = shown.rfind(kClosing);
    if (mark != std::string_view::npos) shown.remove_prefix(mark + kClosing.size());
  }
  if (role.content != Content::kAsIs) shown = strip(shown);
  if (!shown.empty() || place.is_continued) text->append(role.lead);
  chat->add_content(shown);
  if (place.is_continued) return;
  if (place.is_thinking_off && !ends_with(shown, role.no_thinking)) text->append(role.no_thinking);
  write_calls(message, place, chat);
  text->append(role.suffix);
}

}  // namespace glm
