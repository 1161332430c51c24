// Validates, decodes and repairs UTF-8, also if it arrives in parts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace glm {

// Place of the first invalid byte, or npos. RFC 3629: no surrogates and no overlong forms.
size_t find_invalid_utf8(std::string_view text);

// Returns the code point at `*place` and moves `*place` to the next one. The text must be valid.
char32_t read_code_point(std::string_view text, size_t* place);

void append_code_point(std::string* text, char32_t code_point);

// Replaces invalid bytes by U+FFFD, like Utf8Stream.
std::string repair_utf8(std::string_view text);

// Returns whole characters. Each maximal subpart of an invalid character becomes one U+FFFD
// (Unicode section 3.9), as in Python and Rust.
class Utf8Stream {
 public:
  void add(std::string_view bytes, std::string* text);
  void flush(std::string* text);  // at the end of the text
  bool is_complete() const { return missing_ == 0; }

 private:
  void start(unsigned char byte, std::string* text);

  std::string pending_;
  int missing_ = 0;                               // number of missing continuation bytes
  unsigned char lowest_ = 0x80, highest_ = 0xBF;  // range of the next byte
};

}  // namespace glm
