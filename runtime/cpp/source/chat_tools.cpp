#include "chat_tools.hpp"

#include <algorithm>
#include <map>

#include "errors.hpp"
#include "json_text.hpp"
#include "white_space.hpp"

namespace glm {
namespace {

[[noreturn]] void refuse(const std::string& text) { throw Error(GLM_BAD_PROMPT, text); }

// Runs `body`; what the reader finds wrong in the caller's JSON is a bad prompt.
template <class Body>
auto read_given(Body body) {
  try {
    return body();
  } catch (const Error& error) {
    if (error.status() != GLM_BAD_FOLDER) throw;
    std::string text = error.what();
    refuse(text.substr(0, text.rfind(';')) + "; pass JSON in OpenAI's format.");
  }
}

void check_name(const std::string& name, const char* what) {
  if (!name.empty() && name.find('\n') == std::string::npos) return;
  refuse(std::string(what) + " is named '" + name +
         "' where one line of text is expected; write {\"type\": \"function\", \"function\": "
         "{\"name\": ..., \"parameters\": ...}}.");
}

[[noreturn]] void refuse_arguments(const CallText& call) {
  refuse("the call of '" + call.name + "' has the arguments '" + call.arguments +
         "' where an object is expected; write an object, or its JSON text.");
}

// The raw text of an object's field `function`, or of the object itself.
std::string_view find_function(std::string_view object, const char* name) {
  std::string_view found = object;
  JsonReader json(object, name);
  json.object([&](const std::string& key) {
    std::string_view raw = json.raw();
    if (key == "function" && !raw.empty() && raw[0] == '{') found = raw;
  });
  return found;
}

// The name of a built-in tool, such as {"type": "python"}; empty for a function.
std::string find_built_in(std::string_view whole) {
  std::string type;
  bool is_function = false;
  JsonReader json(whole, "tools");
  json.object([&](const std::string& key) {
    is_function = is_function || key == "function" || key == "name";
    if (key == "type" && json.kind() == JsonReader::Kind::kString) {
      type = json.string();
    } else {
      json.skip();
    }
  });
  bool is_known = type == "python" || type == "simple_browser" || type == "cogview";
  return is_known && !is_function ? type : "";
}

ToolText parse_tool(std::string_view whole) {
  if (std::string name = find_built_in(whole); !name.empty()) {
    return {name, std::string(whole), "", true};
  }
  std::string_view function = find_function(whole, "tools");
  ToolText tool{"", std::string(whole), std::string(function)};
  JsonReader json(function, "tools");
  json.object([&](const std::string& key) {
    if (key == "name" && json.kind() == JsonReader::Kind::kString) {
      tool.name = json.string();
    } else {
      json.skip();
    }
  });
  check_name(tool.name, "a tool");
  return tool;
}

CallText parse_call(std::string_view whole) {
  CallText call{"", "{}"};
  bool is_allowed = true;
  JsonReader json(find_function(whole, "tool_calls"), "tool_calls");
  json.object([&](const std::string& key) {
    bool is_text = json.kind() == JsonReader::Kind::kString;
    if (key == "name" && is_text) {
      call.name = json.string();
    } else if (key != "arguments") {
      json.skip();
    } else if (!json.take_null()) {
      is_allowed = is_text || json.kind() == JsonReader::Kind::kObject;
      call.arguments = is_text ? json.string() : rewrite_json(&json, std::nullopt);
    }
  });
  check_name(call.name, "a call");
  if (!is_allowed) refuse_arguments(call);
  if (call.arguments.empty()) call.arguments = "{}";  // some programs send "" for no arguments
  return call;
}

std::optional<std::string> read_optional(JsonReader* json) {
  if (json->take_null()) return std::nullopt;
  return json->string();
}

}  // namespace

std::vector<ToolText> parse_tools(std::string_view text) {
  std::vector<ToolText> tools;
  read_given([&] {
    JsonReader json(text, "tools");
    json.array([&] { tools.push_back(parse_tool(json.raw())); });
    json.finish();
  });
  for (size_t i = 0; i < tools.size(); ++i) {
    auto is_same = [&](const ToolText& tool) { return tool.name == tools[i].name; };
    if (std::none_of(tools.begin(), tools.begin() + static_cast<std::ptrdiff_t>(i), is_same)) continue;
    refuse("two tools have the name '" + tools[i].name + "' where names must differ; rename one.");
  }
  return tools;
}

std::vector<CallText> parse_calls(std::string_view text) {
  std::vector<CallText> calls;
  read_given([&] {
    JsonReader json(text, "tool_calls");
    json.array([&] { calls.push_back(parse_call(json.raw())); });
    json.finish();
  });
  return calls;
}

void RenderedChat::add_content(std::string_view part) {
  contents.push_back({text.size(), text.size() + part.size()});
  text.append(part);
}

void refuse_built_in(const std::string& name) {
  refuse("chat_table.json has no text for the tool '" + name +
         "', because the chat template does not describe it; leave the tool out.");
}

std::string describe_tools(const std::vector<ToolText>& tools) {
  std::string list = "[";
  for (const ToolText& tool : tools) {
    if (tool.is_built_in) refuse_built_in(tool.name);
    list += (list.size() > 1 ? "," : "") + tool.function;
  }
  list += "]";
  JsonReader json(list, "tools", true);
  return rewrite_json(&json, 4);
}

bool ToolsRule::is_divided() const {
  if (!ends_with(before, item_start) || !ends_with(between, item_start)) return false;
  size_t item_end = between.size() - item_start.size();
  return built_in.empty() || after.compare(0, item_end, between, 0, item_end) == 0;
}

void ToolsRule::insert(const std::vector<ToolText>& tools, RenderedChat* chat) const {
  if (chat->text.compare(0, start.size(), start) != 0) {
    refuse("chat_table.json has no rule for tools in this conversation; pass the prompt as text.");
  }
  RenderedChat block;
  block.text = start + before.substr(0, before.size() - item_start.size());
  for (size_t i = 0; i < tools.size(); ++i) {
    bool is_next = i > 0 && !tools[i - 1].is_built_in;
    if (is_next) block.text.append(between, 0, between.size() - item_start.size());
    write(tools[i], &block);
  }
  size_t item_end = between.size() - item_start.size();
  block.text.append(after, tools.back().is_built_in ? item_end : 0, std::string::npos);
  size_t added = block.text.size() - start.size();
  for (const TextRange& range : chat->contents) {
    block.contents.push_back({range.begin + added, range.end + added});
  }
  block.text.append(chat->text, start.size(), std::string::npos);
  *chat = std::move(block);
}

// Writes a tool, without the end of a function's text, with which `between` and `after` begin.
void ToolsRule::write(const ToolText& tool, RenderedChat* chat) const {
  if (tool.is_built_in) {
    auto found = built_in.find(tool.name);
    if (found == built_in.end()) refuse_built_in(tool.name);
    chat->text += found->second;
    return;
  }
  chat->text += item_start;
  if (name_end) chat->add_content(tool.name);
  chat->text += name_end.value_or("");
  JsonReader json(writes_function ? tool.function : tool.whole, "tools");
  chat->add_content(rewrite_json(&json, indent));
}

void CallsRule::write(const CallText& call, bool is_first, RenderedChat* chat) const {
  if (is_first && is_message && !first) {
    refuse("a call cannot be the first message of a conversation; begin with a question.");
  }
  chat->text += is_first && is_message ? *first : prefix;
  chat->add_content(call.name);
  if (!middle) {
    chat->text += name_end;
    chat->add_content(call.arguments);
    chat->text += suffix;
    return;
  }
  bool is_empty = true;
  try {
    JsonReader json(call.arguments, "the arguments of a call");
    json.object([&](const std::string& key) {
      chat->text += is_empty ? name_end : between;
      is_empty = false;
      chat->add_content(key);
      chat->text += *middle;
      bool is_text = json.kind() == JsonReader::Kind::kString;
      chat->add_content(is_text ? json.string() : rewrite_json(&json, std::nullopt));
    });
    json.finish();
  } catch (const Error& error) {
    if (error.status() != GLM_BAD_FOLDER) throw;
    refuse_arguments(call);
  }
  chat->text += is_empty ? empty : suffix;
}

ToolsRule read_tools_rule(JsonReader* json) {
  ToolsRule rule;
  const std::map<std::string, std::string*> texts = {{"start", &rule.start},
                                                     {"before", &rule.before},
                                                     {"between", &rule.between},
                                                     {"after", &rule.after},
                                                     {"item_start", &rule.item_start}};
  json->object([&](const std::string& key) {
    if (auto text = texts.find(key); text != texts.end()) {
      *text->second = json->string();
    } else if (key == "name_end") {
      rule.name_end = read_optional(json);
    } else if (key == "built_in") {
      json->object([&](const std::string& name) { rule.built_in[name] = json->string(); });
    } else if (key == "value") {
      rule.writes_function = json->string() == "function";
    } else if (key == "indent" && !json->take_null()) {
      int64_t indent = json->integer();
      if (indent < 0 || indent > 16) json->fail("indent is not from 0 to 16");
      rule.indent = static_cast<int>(indent);
    } else if (key != "indent") {
      json->skip();
    }
  });
  if (!rule.is_divided()) json->fail("item_start is not the end of before and between");
  return rule;
}

CallsRule read_calls_rule(JsonReader* json) {
  CallsRule rule;
  const std::map<std::string, std::string*> texts = {{"prefix", &rule.prefix},
                                                     {"name_end", &rule.name_end},
                                                     {"between", &rule.between},
                                                     {"suffix", &rule.suffix},
                                                     {"empty", &rule.empty}};
  json->object([&](const std::string& key) {
    if (auto text = texts.find(key); text != texts.end()) {
      *text->second = json->string();
    } else if (key == "first") {
      rule.first = read_optional(json);
    } else if (key == "middle") {
      rule.middle = read_optional(json);
    } else if (key == "is_message") {
      rule.is_message = json->boolean();
    } else {
      json->skip();
    }
  });
  return rule;
}

}  // namespace glm
