#include "json_text.hpp"

#include <cstdio>

namespace glm {
namespace {

class JsonWriter {
 public:
  JsonWriter(JsonReader* json, std::optional<int> indent) : json_(*json), indent_(indent) {}

  std::string write() {
    write_value();
    return std::move(text_);
  }

 private:
  void write_value() {
    switch (json_.kind()) {
      case JsonReader::Kind::kObject:
        open('{');
        json_.object([this](const std::string& key) {
          separate();
          text_ += quote_json(key) + ": ";
          write_item();
        });
        return close('}');
      case JsonReader::Kind::kArray:
        open('[');
        json_.array([this] {
          separate();
          write_item();
        });
        return close(']');
      case JsonReader::Kind::kString:
        text_ += quote_json(json_.string());
        return;
      default:
        text_ += json_.raw();
    }
  }

  void write_item() {
    write_value();
    is_empty_ = false;
  }

  void open(char bracket) {
    text_ += bracket;
    ++depth_;
    is_empty_ = true;
  }

  void close(char bracket) {
    --depth_;
    if (!is_empty_) break_line();
    text_ += bracket;
    is_empty_ = false;
  }

  void separate() {
    if (!is_empty_) text_ += indent_ ? "," : ", ";
    break_line();
  }

  void break_line() {
    if (indent_) text_.append("\n").append(static_cast<size_t>(depth_ * *indent_), ' ');
  }

  JsonReader& json_;
  std::optional<int> indent_;
  std::string text_;
  int depth_ = 0;
  bool is_empty_ = true;  // nothing was written in the innermost list or object
};

}  // namespace

std::string rewrite_json(JsonReader* json, std::optional<int> indent) {
  return JsonWriter(json, indent).write();
}

std::string quote_json(std::string_view text) {
  std::string quoted = "\"";
  for (char character : text) {
    auto byte = static_cast<unsigned char>(character);
    if (character == '"' || character == '\\') {
      quoted.append(1, '\\').append(1, character);
    } else if (byte >= 0x20) {
      quoted += character;
    } else if (size_t place = std::string_view("\b\f\n\r\t").find(character);
               place != std::string_view::npos) {
      quoted.append(1, '\\').append(1, "bfnrt"[place]);
    } else {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", byte);
      quoted += escaped;
    }
  }
  return quoted + "\"";
}

}  // namespace glm
