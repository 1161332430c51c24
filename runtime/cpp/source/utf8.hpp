// UTF-8: check it, read it code point by code point, repair it while it arrives in parts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace glm {

// Place of the first byte that is no UTF-8 (RFC 3629: no surrogates, nothing overlong), or npos.
size_t find_invalid_utf8(std::string_view text);

// The code point at `*place`, which moves behind it. The text must be valid and not at its end.
char32_t read_code_point(std::string_view text, size_t* place);

void append_code_point(std::string* text, char32_t code_point);

// What is no UTF-8 becomes U+FFFD, as by Utf8Stream.
std::string repair_utf8(std::string_view text);

// Gives whole characters out; what cannot become one is U+FFFD, once for each longest beginning of
// a character (Unicode 3.9, "maximal subpart"), as Python and Rust do.
class Utf8Stream {
 public:
  void add(std::string_view bytes, std::string* text);
  void flush(std::string* text);  // no more bytes come
  bool is_complete() const { return missing_ == 0; }

 private:
  void start(unsigned char byte, std::string* text);

  std::string pending_;
  int missing_ = 0;                              // continuation bytes still to come
  unsigned char lowest_ = 0x80, highest_ = 0xBF;  // of the next one
};

}  // namespace glm
