#include <set>

#include "call_dialects.hpp"
#include "errors.hpp"
#include "json_text.hpp"
#include "white_space.hpp"

namespace glm {
namespace {

constexpr std::string_view kKey = "<arg_key>", kKeyEnd = "</arg_key>";
constexpr std::string_view kValue = "<arg_value>", kValueEnd = "</arg_value>";
constexpr char kSpaces[] = " \t\r\n";
constexpr int kMaxSchemas = 200;  // a schema may refer to itself

using Raw = std::optional<std::string_view>;  // the JSON text of a value
using Types = std::optional<std::set<std::string>>;

JsonReader::Kind kind_of(std::string_view json) { return JsonReader(json, "tools", true).kind(); }

bool is_string(std::string_view json) { return kind_of(json) == JsonReader::Kind::kString; }

std::string read_string(std::string_view json) { return JsonReader(json, "tools", true).string(); }

// The value of a key; none if `json` is no object that has it.
Raw find(const Raw& json, std::string_view wanted) {
  Raw found;
  if (!json || kind_of(*json) != JsonReader::Kind::kObject) return found;
  JsonReader reader(*json, "tools", true);
  reader.object([&](const std::string& key) {
    std::string_view value = reader.raw();
    if (key == wanted) found = value;
  });
  return found;
}

std::vector<std::string_view> list(const Raw& json) {
  std::vector<std::string_view> items;
  if (!json || kind_of(*json) != JsonReader::Kind::kArray) return items;
  JsonReader reader(*json, "tools", true);
  reader.array([&] { items.push_back(reader.raw()); });
  return items;
}

// The part of a schema that a reference such as #/$defs/Name names.
Raw resolve(std::string reference, Raw found) {
  if (reference.rfind("#/", 0) == 0) reference.erase(0, 2);
  for (size_t begin = 0, end = 0; end != std::string::npos; begin = end + 1) {
    end = reference.find('/', begin);
    found = find(found, std::string_view(reference).substr(begin, end - begin));
  }
  return found;
}

// Adds the types that a schema names, or else the schemas of which one must hold. Returns false if
// it says nothing.
bool read_schema(const Raw& schema, const Raw& root, std::set<std::string>* types,
                 std::vector<Raw>* alternatives) {
  Raw type = find(schema, "type"), reference = find(schema, "$ref");
  std::vector<std::string_view> named = list(type), values = list(find(schema, "enum"));
  if (type && is_string(*type)) named.push_back(*type);
  for (std::string_view one : named) {
    std::string name = is_string(one) ? read_string(one) : std::string(one);
    types->insert(name == "integer" ? "number" : name);
  }
  if (!named.empty()) return true;
  if (type && kind_of(*type) == JsonReader::Kind::kArray) return false;
  if (reference && is_string(*reference)) {
    alternatives->push_back(resolve(read_string(*reference), root));
    return true;
  }
  bool has_texts = !values.empty();
  for (std::string_view one : values) has_texts = has_texts && is_string(one);
  if (has_texts) types->insert("string");
  if (has_texts) return true;
  size_t before = alternatives->size();
  for (const char* key : {"anyOf", "oneOf"}) {
    for (std::string_view one : list(find(schema, key))) alternatives->push_back(one);
  }
  return alternatives->size() > before;
}

// The types that a schema of parameters allows for a key; none if it does not say.
Types list_types(const Raw& parameters, std::string_view key) {
  std::set<std::string> types;
  std::vector<Raw> waiting = {find(find(parameters, "properties"), key)};
  for (int count = 0; count < kMaxSchemas; ++count) {
    if (waiting.empty()) return types;
    Raw schema = waiting.back();
    waiting.pop_back();
    if (!read_schema(schema, parameters, &types, &waiting)) return std::nullopt;
  }
  return std::nullopt;
}

// The JSON type of a text; empty if it is not JSON, or a string.
std::string name_kind(std::string_view text) {
  try {
    JsonReader json = JsonReader::of_call(text);
    JsonReader::Kind kind = json.kind();
    json.skip();
    json.finish();
    switch (kind) {
      case JsonReader::Kind::kObject: return "object";
      case JsonReader::Kind::kArray: return "array";
      case JsonReader::Kind::kNumber: return "number";
      case JsonReader::Kind::kBoolean: return "boolean";
      case JsonReader::Kind::kNull: return "null";
      case JsonReader::Kind::kString: return "";
    }
  } catch (const Error&) {
  }
  return "";
}

// The JSON of an argument: its own text if it is JSON and no string, or a string. Where a string is
// allowed, only a value of another allowed type is taken as JSON.
std::string write_value(std::string_view text, const Types& types) {
  std::string kind = name_kind(text);
  bool is_text = kind.empty() || (types && types->count("string") > 0 && types->count(kind) == 0);
  return is_text ? quote_json(text) : std::string(strip(text));
}

// Removes the text up to a tag, and the tag; none if the tag is missing.
std::optional<std::string_view> take_until(std::string_view* text, std::string_view tag) {
  size_t end = text->find(tag);
  if (end == std::string_view::npos) return std::nullopt;
  std::string_view found = text->substr(0, end);
  text->remove_prefix(end + tag.size());
  return found;
}

// Reads the arguments and the end of the call.
std::optional<std::string> take_arguments(std::string_view* text, const Raw& parameters) {
  std::string json = "{";
  while (true) {
    *text = skip(*text, kSpaces);
    if (take_start(text, kCallEnd)) return json + "}";
    if (!take_start(text, kKey)) return std::nullopt;
    std::optional<std::string_view> key = take_until(text, kKeyEnd);
    if (!key || strip(*key).empty() || key->find_first_of("<\n") != std::string_view::npos) {
      return std::nullopt;
    }
    *text = skip(*text, kSpaces);
    if (!take_start(text, kValue)) return std::nullopt;
    std::optional<std::string_view> value = take_until(text, kValueEnd);
    if (!value) return std::nullopt;
    Types types = list_types(parameters, strip(*key));
    json += (json.size() > 1 ? ", " : "") + quote_json(strip(*key)) + ": ";
    json += write_value(*value, types);
  }
}

}  // namespace

std::optional<CallText> take_tagged_call(const std::vector<ToolText>& tools,
                                         std::string_view* text) {
  std::string_view rest = *text;
  if (!take_start(&rest, kCallTag)) return std::nullopt;
  rest = skip(rest, kSpaces);
  for (const ToolText& tool : tools) {
    std::string_view body = rest;
    if (!take_start(&body, tool.name)) continue;
    body = skip(body, kSpaces);
    bool is_head = body.substr(0, kKey.size()) == kKey ||
                   body.substr(0, kCallEnd.size()) == kCallEnd;
    if (!is_head) continue;
    std::optional<std::string> json = take_arguments(&body, find(Raw(tool.function), "parameters"));
    if (!json) return std::nullopt;
    *text = body;
    return CallText{tool.name, *json};
  }
  return std::nullopt;
}

}  // namespace glm
