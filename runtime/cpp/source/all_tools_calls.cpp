#include "call_dialects.hpp"
#include "json_text.hpp"
#include "python_literals.hpp"
#include "white_space.hpp"

namespace glm {
namespace {

constexpr std::string_view kBrowser = "simple_browser";

// A function of the browser, its opening, and the names of its parameters in order.
struct Action {
  std::string_view name, opening;
  std::vector<std::string_view> parameters;
};

const std::vector<Action>& list_actions() {
  static const std::vector<Action> actions = {{"search", "search(", {"query", "recency_days"}},
                                              {"mclick", "mclick(", {"ids"}},
                                              {"open_url", "open_url(", {"url"}}};
  return actions;
}

// The key of a text that is a whole call; empty for the browser.
std::string find_key(std::string_view name) {
  if (name == "python") return "code";
  return name == "cogview" ? "prompt" : "";
}

std::optional<CallText> take_browser_call(const std::vector<ToolText>& tools,
                                          std::string_view* text) {
  std::vector<std::string_view> openings;
  for (const Action& action : list_actions()) openings.push_back(action.opening);
  std::string_view rest = *text;
  std::optional<NameLine> head = take_name_line(tools, kBrowser, openings, &rest);
  if (!head) return std::nullopt;
  for (const Action& action : list_actions()) {
    if (!take_start(&rest, action.opening)) continue;
    std::string start = "{\"action\": " + quote_json(action.name);
    auto json = take_python_arguments(action.parameters, "action", start, &rest);
    if (!json || (head->has_fence && !close_fence(true, &rest))) return std::nullopt;
    *text = rest;
    return CallText{head->tool->name, std::move(*json)};
  }
  return std::nullopt;
}

// Reads a text up to the next turn.
std::optional<CallText> take_raw_call(const std::vector<ToolText>& tools, std::string_view* text) {
  std::string_view line = skip(*text, " \t");
  for (const ToolText& tool : tools) {
    std::string_view rest = line;
    std::string key = tool.is_built_in ? find_key(tool.name) : "";
    if (key.empty() || !take_start(&rest, tool.name)) continue;
    rest = skip(rest, " \t");
    take_start(&rest, "\r");
    if (!take_start(&rest, "\n")) continue;
    std::string_view body = rest.substr(0, rest.find(kTurn));
    if (strip(body).empty()) return std::nullopt;
    *text = rest.substr(body.size());
    return CallText{tool.name, "{" + quote_json(key) + ": " + quote_json(body) + "}"};
  }
  return std::nullopt;
}

// The JSON text of a key's value; empty if there is no such key.
std::string_view find_value(const Entries& given, std::string_view wanted) {
  for (const auto& [key, value] : given) {
    if (key == wanted) return value;
  }
  return {};
}

// The text of a key whose value is a text.
std::optional<std::string> find_text(const Entries& given, std::string_view wanted) {
  std::string_view value = find_value(given, wanted);
  if (value.empty() || value[0] != '"') return std::nullopt;
  return JsonReader(value, "a call", true).string();
}

// A call of the browser in Python's form; none if it is none of its functions.
std::optional<std::string> write_browser_call(const Entries& given) {
  for (const Action& action : list_actions()) {
    if (find_text(given, "action") != action.name) continue;
    std::string_view parameter = action.parameters[0], first = find_value(given, parameter);
    std::string text = first.empty() ? "" : write_python_literal(first, '"');
    for (const auto& [key, value] : given) {
      if (key == "action" || key == parameter) continue;
      text += (text.empty() ? "" : ", ") + key + "=" + write_python_literal(value, '"');
    }
    return std::string(action.opening) + text + ")";
  }
  return std::nullopt;
}

}  // namespace

std::optional<CallText> take_all_tools_call(const std::vector<ToolText>& tools, bool is_first,
                                            std::string_view* text) {
  std::string_view rest = *text;
  bool is_turn = take_start(&rest, kTurn) || is_first;
  std::string_view after = rest;
  // A line that is the head of a call of one kind is not read as a call of another one.
  std::optional<CallText> call;
  if (take_name_line(tools, "", {"{"}, &after)) {
    call = take_name_line_call(tools, true, &rest);
  } else {
    call = take_browser_call(tools, &rest);
    if (!call && is_turn) call = take_raw_call(tools, &rest);
  }
  if (call) *text = rest;
  return call;
}

std::string write_built_in_call(const CallText& call) {
  std::optional<Entries> given = read_entries(call.arguments);
  if (!given) return call.arguments;
  bool is_browser = call.name == kBrowser;
  std::optional<std::string> text =
      is_browser ? write_browser_call(*given) : find_text(*given, find_key(call.name));
  return text.value_or(call.arguments);
}

}  // namespace glm
