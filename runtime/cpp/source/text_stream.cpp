#include "text_stream.hpp"

namespace glm {

std::string TextStream::add(int32_t token) {
  std::string text;
  utf8_.add(tokenizer_.bytes(token), &text);
  strip(&text);
  return text;
}

std::string TextStream::flush() {
  std::string text;
  utf8_.flush(&text);
  strip(&text);
  return text;
}

void TextStream::strip(std::string* text) {
  if (!strips_space_ || text->empty()) return;
  strips_space_ = false;
  if (text->front() == ' ') text->erase(0, 1);
}

}  // namespace glm
