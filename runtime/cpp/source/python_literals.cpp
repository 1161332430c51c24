#include "python_literals.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "call_dialects.hpp"
#include "errors.hpp"
#include "json_reader.hpp"
#include "json_text.hpp"
#include "utf8.hpp"

namespace glm {
namespace {

constexpr std::string_view kSpaces = " \t\r\n", kMarks = "'\"()[]{}=:,";
constexpr std::string_view kHexDigits = "0123456789abcdefABCDEF", kOctalDigits = "01234567";
constexpr std::string_view kEscapes = "abfnrtv\\'\"\n", kMeanings = "\a\b\f\n\r\t\v\\'\"";

bool has(std::string_view characters, char one) {
  return characters.find(one) != std::string_view::npos;
}

bool is_digit(char one) { return one >= '0' && one <= '9'; }

bool is_name(std::string_view word) {
  auto may_begin = [](char one) {
    auto byte = static_cast<unsigned char>(one);
    return (one >= 'a' && one <= 'z') || (one >= 'A' && one <= 'Z') || one == '_' || byte >= 0x80;
  };
  auto may_follow = [&](char one) { return may_begin(one) || is_digit(one); };
  return !word.empty() && may_begin(word[0]) && std::all_of(word.begin(), word.end(), may_follow);
}

// Whether a word is a number of JSON.
bool is_number(std::string_view word) {
  try {
    JsonReader json(word, "a number", true);
    return json.kind() == JsonReader::Kind::kNumber && json.raw() == word;
  } catch (const Error&) {
    return false;
  }
}

// The JSON of a constant or number; empty for other words.
std::string_view find_value(std::string_view word) {
  if (word == "True") return "true";
  if (word == "False") return "false";
  if (word == "None") return "null";
  return is_number(word) ? word : std::string_view();
}

class ArgumentReader {
 public:
  ArgumentReader(std::vector<std::string_view> positional, const std::string& before,
                 std::string json)
      : json_(std::move(json)), positional_(std::move(positional)) {
    if (!before.empty()) names_.insert(before);
    counts_.push_back(names_.size());
  }

  // Returns the number of characters up to the closing parenthesis; 0 if the text is wrong.
  size_t read(std::string_view text) {
    for (size_t place = 0; place < text.size(); ++place) {
      if (!take(text[place])) return 0;
      if (open_.empty()) return place + 1;
    }
    return 0;
  }

  std::string& json() { return json_; }

 private:
  enum class Expected {
    kItem,  // an argument, an element or a key; or the end
    kEquals,
    kColon,
    kValue,
    kComma  // or the end
  };

  // Takes one byte; returns false if it is wrong here.
  bool take(char one) {
    if (quote_ != '\0') return take_in_string(one);
    if (!has(kMarks, one) && !has(kSpaces, one)) {
      word_ += one;
      return expected_ == Expected::kItem || expected_ == Expected::kValue;
    }
    if (!word_.empty() && !end_word(one)) return false;
    return has(kSpaces, one) || take_mark(one);
  }

  bool take_mark(char one) {
    if (one == '\'' || one == '"') return begin_string(one);
    if (one == '[' || one == '{') return begin_nested(one);
    if (one == ')' || one == ']' || one == '}') return end_nested(one);
    if (one == ',' && expected_ == Expected::kComma) return write("", Expected::kItem);
    if (one == ':' && expected_ == Expected::kColon) return write(": ", Expected::kValue);
    return one == '=' && expected_ == Expected::kEquals && write("", Expected::kValue);
  }

  // Takes a word as a constant, a number, or a parameter's name. `after` is what follows it.
  bool end_word(char after) {
    std::string word = std::move(word_);
    word_.clear();
    std::string_view value = find_value(word);
    if (!value.empty() && !has("'\"=([{", after)) {
      return begin_value() && write(value, Expected::kComma);
    }
    bool may_be_name = expected_ == Expected::kItem && open_.back() == ')' && value.empty();
    if (!may_be_name || !is_name(word) || !names_.insert(word).second) return false;
    positional_.clear();
    separate();
    return write(quote_json(word) + ": ", Expected::kEquals);
  }

  // Writes what stands before a value; returns false if none may stand here.
  bool begin_value() {
    if (expected_ == Expected::kValue) return true;
    if (expected_ != Expected::kItem || open_.back() == '}') return false;
    if (open_.back() == ']') {
      separate();
      return true;
    }
    if (positional_.empty() || !names_.insert(std::string(positional_[0])).second) return false;
    separate();
    json_ += quote_json(positional_[0]) + ": ";
    positional_.erase(positional_.begin());
    return true;
  }

  bool begin_string(char quote) {
    is_key_ = expected_ == Expected::kItem && open_.back() == '}';
    if (!is_key_ && !begin_value()) return false;
    if (is_key_) separate();
    quote_ = quote;
    return write("\"", Expected::kValue);
  }

  bool begin_nested(char one) {
    if (!begin_value()) return false;
    open_ += one == '[' ? ']' : '}';
    counts_.push_back(0);
    return write(std::string_view(&one, 1), Expected::kItem);
  }

  bool end_nested(char one) {
    bool may_end = expected_ == Expected::kItem || expected_ == Expected::kComma;
    if (!may_end || open_.back() != one) return false;
    open_.pop_back();
    counts_.pop_back();
    return write(one == ']' ? "]" : "}", Expected::kComma);
  }

  bool take_in_string(char one) {
    if (!escape_.empty()) return take_escape(one);
    if (one == '\\') {
      escape_ = "\\";
      return true;
    }
    if (one == quote_) {
      quote_ = '\0';
      return write("\"", is_key_ ? Expected::kColon : Expected::kComma);
    }
    return one != '\r' && one != '\n' && write_text(std::string_view(&one, 1));
  }

  bool take_escape(char one) {
    if (escape_.size() == 1) return begin_escape(one);
    char kind = escape_[1];
    if (!has(kOctalDigits, kind)) {
      escape_ += one;
      size_t length = kind == 'x' ? 4 : kind == 'u' ? 6 : 10;
      if (!has(kHexDigits, one)) return false;
      return escape_.size() < length || write_code(escape_.substr(2), 16);
    }
    if (!has(kOctalDigits, one)) return write_code(escape_.substr(1), 8) && take_in_string(one);
    escape_ += one;  // an octal number has three digits at most
    return escape_.size() < 4 || write_code(escape_.substr(1), 8);
  }

  bool begin_escape(char one) {
    if (has("xuU", one) || has(kOctalDigits, one)) {
      escape_ += one;
      return true;
    }
    escape_.clear();
    if (one == 'N' || one == '\r') return false;
    size_t place = kEscapes.find(one);
    if (place == std::string_view::npos) return write_text("\\") && write_text({&one, 1});
    return write_text(kMeanings.substr(place, 1));  // a line end means nothing
  }

  // Writes a character by its code point; halves of surrogate pairs are no characters.
  bool write_code(const std::string& digits, int base) {
    escape_.clear();
    unsigned long code = std::stoul(digits, nullptr, base);
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return false;
    std::string text;
    append_code_point(&text, static_cast<char32_t>(code));
    return write_text(text);
  }

  bool write_text(std::string_view text) {
    std::string quoted = quote_json(text);
    json_.append(quoted, 1, quoted.size() - 2);
    return true;
  }

  // Counts an item of the innermost list or object, and writes what stands before it.
  void separate() {
    if (counts_.back()++ > 0) json_ += ", ";
  }

  bool write(std::string_view text, Expected expected) {
    json_ += text;
    expected_ = expected;
    return true;
  }

  std::string json_;
  std::vector<std::string_view> positional_;
  std::set<std::string> names_;
  std::string open_ = ")";      // closing brackets that are expected
  std::vector<size_t> counts_;  // items of each nested list or object
  Expected expected_ = Expected::kItem;
  char quote_ = '\0';  // of the string that is being read
  bool is_key_ = false;
  std::string escape_, word_;
};

std::string write_string(std::string_view text, char quote) {
  std::string json = quote_json(text);
  if (quote == '"') return json;
  std::string written(1, quote);
  for (size_t i = 1; i + 1 < json.size(); ++i) {
    bool is_escape = json[i] == '\\';
    if (is_escape) ++i;
    if ((is_escape && json[i] != '"') || json[i] == quote) written += '\\';
    written += json[i];
  }
  return written + quote;
}

std::string write_value(JsonReader* json, char quote);

std::string write_list(JsonReader* json, char quote) {
  std::string text = "[";
  json->array([&] { text += (text.size() > 1 ? ", " : "") + write_value(json, quote); });
  return text + "]";
}

// The entries of an object; of a key that occurs twice, the first place and the last value.
template <class ReadValue>
Entries collect_entries(JsonReader* json, ReadValue read_value) {
  Entries entries;
  std::map<std::string, size_t> places;
  json->object([&](const std::string& key) {
    std::string value = read_value();
    auto [found, is_new] = places.emplace(key, entries.size());
    if (is_new) entries.emplace_back(key, "");
    entries[found->second].second = std::move(value);
  });
  return entries;
}

std::string write_object(JsonReader* json, char quote) {
  std::string text = "{";
  for (const auto& [key, value] : collect_entries(json, [&] { return write_value(json, quote); })) {
    text += (text.size() > 1 ? ", " : "") + write_string(key, quote) + ": " + value;
  }
  return text + "}";
}

std::string write_value(JsonReader* json, char quote) {
  switch (json->kind()) {
    case JsonReader::Kind::kObject: return write_object(json, quote);
    case JsonReader::Kind::kArray: return write_list(json, quote);
    case JsonReader::Kind::kString: return write_string(json->string(), quote);
    case JsonReader::Kind::kNumber: return std::string(json->raw());
    case JsonReader::Kind::kBoolean: return json->boolean() ? "True" : "False";
    case JsonReader::Kind::kNull: json->skip();
  }
  return "None";
}

}  // namespace

std::optional<std::string> take_python_arguments(std::vector<std::string_view> positional,
                                                 const std::string& before, std::string json,
                                                 std::string_view* text) {
  ArgumentReader reader(std::move(positional), before, std::move(json));
  size_t length = reader.read(*text);
  std::string_view object = reader.json();
  if (length == 0 || !take_object(&object)) return std::nullopt;  // it may be nested too deeply
  text->remove_prefix(length);
  return std::move(reader.json());
}

std::optional<Entries> read_entries(const std::string& text) {
  try {
    JsonReader json(text, "a call", true);
    if (json.kind() != JsonReader::Kind::kObject) return std::nullopt;
    Entries entries = collect_entries(&json, [&] { return std::string(json.raw()); });
    json.finish();
    return entries;
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::string write_python_literal(std::string_view text, char quote) {
  JsonReader json(text, "a call", true);
  return write_value(&json, quote);
}

}  // namespace glm
