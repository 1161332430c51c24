// Reads JSON from front to back without building a tree: a tokenizer.json has a million values.
//
// Strict (RFC 8259, valid UTF-8, no half surrogates), and bounded in depth. Every error is
// GLM_BAD_FOLDER and names the file and the byte.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace glm {

class JsonReader {
 public:
  enum class Kind { kObject, kArray, kString, kNumber, kBoolean, kNull };

  // `text` must outlive the reader; `name` is the file's, for errors.
  JsonReader(std::string_view text, std::string name);

  Kind kind();  // of the next value

  // Each of these takes one value, or fails because another kind stands there.
  std::string string();
  double number();
  int64_t integer();
  bool boolean();
  bool take_null();  // whether it was one; otherwise nothing is taken
  void skip();       // a value of any kind

  // `each_key(key)` must take the value.
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

  // `each_item()` must take the item.
  template <class EachItem>
  void array(EachItem each_item) {
    enter('[', "an array");
    if (take(']')) return leave();
    do each_item();
    while (take(','));
    expect(']');
    leave();
  }

  void finish();  // fails unless nothing but blanks is left
  [[noreturn]] void fail(const std::string& what) const;

 private:
  void enter(char opening, const char* expected);
  void leave() { --depth_; }
  void skip_blanks();
  bool take(char character);
  void expect(char character);
  void expect_word(std::string_view word);
  void take_string(std::string* value);  // or NULL, where nobody wants it; likewise:
  void read_escape(std::string* text);
  unsigned read_hex();
  std::string_view number_text();
  bool take_digits();

  std::string_view text_;
  std::string name_;
  size_t place_ = 0;
  int depth_ = 0;
};

}  // namespace glm
