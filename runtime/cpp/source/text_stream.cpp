#include "text_stream.hpp"

namespace glm {
namespace {

constexpr size_t kLongestCharacter = 4;  // bytes; RFC 3629, section 3
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Removes the first `count` characters.
std::string drop_characters(const std::string& text, size_t count) {
  size_t place = 0;
  while (count-- > 0 && place < text.size()) read_code_point(text, &place);
  return text.substr(place);
}

size_t count_characters(const std::string& text) {
  size_t count = 0;
  for (size_t place = 0; place < text.size(); ++count) read_code_point(text, &place);
  return count;
}

bool ends_with_replacement(std::string_view text) {
  return text.size() >= kReplacement.size() &&
         text.substr(text.size() - kReplacement.size()) == kReplacement;
}

}  // namespace

std::string TextStream::add(int32_t token) {
  if (tokenizer_.is_special(token)) return "";
  std::string text;
  if (tokenizer_.is_byte_level()) {
    utf8_.add(tokenizer_.bytes(token), &text);
    return text;
  }
  pending_.push_back(token);
  text = decode_pending();
  // An incomplete character has fewer tokens than bytes, so a longer wait would not help.
  if (ends_with_replacement(text) && pending_.size() < kLongestCharacter) return "";
  move_window();
  return text;
}

std::string TextStream::flush() {
  std::string text;
  if (tokenizer_.is_byte_level()) {
    utf8_.flush(&text);
    return text;
  }
  text = decode_pending();
  move_window();
  return text;
}

// The text that the pending tokens add. Bytes may form a character with the tokens before them.
std::string TextStream::decode_pending() const {
  std::vector<int32_t> window = shown_;
  window.insert(window.end(), pending_.begin(), pending_.end());
  std::string before = tokenizer_.decode(shown_.data(), shown_.size());
  std::string text = tokenizer_.decode(window.data(), window.size());
  return drop_characters(text, count_characters(before));
}

void TextStream::move_window() {
  shown_.swap(pending_);
  pending_.clear();
}

}  // namespace glm
