// Parses JSON as a stream without building a tree, because a tokenizer.json has a million values.
//
// Accepts RFC 8259 with valid UTF-8 and paired surrogates, up to a fixed depth. Every error is
// GLM_BAD_FOLDER and names the file and the byte.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace glm {

class JsonReader {
 public:
  enum class Kind { kObject, kArray, kString, kNumber, kBoolean, kNull };

  // `text` must outlive the reader. `name` is the file name in error messages. `is_utf8` says that
  // the text was checked already.
  JsonReader(std::string_view text, std::string name, bool is_utf8 = false);

  // Reads what a model wrote, which is valid UTF-8. It accepts what Python's json accepts: more depth,
  // surrogates without a pair, which become U+FFFD, and integers of up to 4,300 digits.
  static JsonReader of_call(std::string_view text);

  Kind kind();  // the kind of the next value

  // Each of these reads one value, and fails if the value is of another kind.
  std::string string();
  double number();
  int64_t integer();
  bool boolean();
  bool take_null();  // returns false and reads nothing if the value is not null
  void skip();       // skips a value of any kind
  std::string_view raw();  // reads a value of any kind, and returns its part of the text

  // `each_key(key)` must read the value.
  template <class EachKey>
  void object(EachKey each_key) {
    enter('{', "an object");
    if (take('}')) return leave();
    do {
      skip_blanks();
      std::string key = string();
      expect(':');
      each_key(key);
    } while (take(','));
    expect('}');
    leave();
  }

  // `each_item()` must read the item.
  template <class EachItem>
  void array(EachItem each_item) {
    enter('[', "an array");
    if (take(']')) return leave();
    do each_item();
    while (take(','));
    expect(']');
    leave();
  }

  void finish();  // fails if anything but white space is left
  [[noreturn]] void fail(const std::string& what) const;

 private:
  void enter(char opening, const char* expected);
  void leave() { --depth_; }
  void skip_blanks();
  bool take(char character);
  void expect(char character);
  void expect_word(std::string_view word);
  void take_string(std::string* value);  // `value` may be NULL
  void read_escape(std::string* text);
  char32_t read_low_half(char32_t high);
  unsigned read_hex();
  std::string_view number_text();
  bool take_digits();

  std::string_view text_;
  std::string name_;
  size_t place_ = 0;
  int depth_ = 0;
  bool is_call_ = false;
};

}  // namespace glm
