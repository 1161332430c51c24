#include "utf8.hpp"

namespace glm {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

struct Lead {
  int following;                  // number of continuation bytes; -1 if the byte is not a lead byte
  unsigned char lowest, highest;  // range of the first continuation byte
};

// Unicode 15, table 3-7.
Lead classify(unsigned char byte) {
  if (byte < 0x80) return {0, 0, 0};
  if (byte < 0xC2 || byte > 0xF4) return {-1, 0, 0};
  if (byte < 0xE0) return {1, 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte < 0xF0) return {2, 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {3, 0x80, 0xBF};
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  size_t place = 0;
  while (place < text.size()) {
    if (static_cast<unsigned char>(text[place]) < 0x80) {  // the common case
      ++place;
      continue;
    }
    Lead lead = classify(static_cast<unsigned char>(text[place]));
    if (lead.following < 0 || place + lead.following >= text.size()) return place;
    for (int i = 1; i <= lead.following; ++i) {
      auto byte = static_cast<unsigned char>(text[place + i]);
      if (byte < lead.lowest || byte > lead.highest) return place;
      lead.lowest = 0x80, lead.highest = 0xBF;
    }
    place += 1 + lead.following;
  }
  return std::string_view::npos;
}

char32_t read_code_point(std::string_view text, size_t* place) {
  auto first = static_cast<unsigned char>(text[(*place)++]);
  if (first < 0x80) return first;
  int following = first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
  char32_t code_point = first & (0x3F >> following);
  for (int i = 0; i < following; ++i) code_point = code_point << 6 | (text[(*place)++] & 0x3F);
  return code_point;
}

void append_code_point(std::string* text, char32_t code_point) {
  if (code_point < 0x80) {
    *text += static_cast<char>(code_point);
    return;
  }
  int following = code_point < 0x800 ? 1 : code_point < 0x10000 ? 2 : 3;
  const unsigned char marks[] = {0, 0xC0, 0xE0, 0xF0};
  *text += static_cast<char>(marks[following] | code_point >> (6 * following));
  for (int i = following - 1; i >= 0; --i) {
    *text += static_cast<char>(0x80 | ((code_point >> (6 * i)) & 0x3F));
  }
}

std::string repair_utf8(std::string_view text) {
  std::string repaired;
  Utf8Stream stream;
  stream.add(text, &repaired);
  stream.flush(&repaired);
  return repaired;
}

void Utf8Stream::add(std::string_view bytes, std::string* text) {
  for (char character : bytes) {
    auto byte = static_cast<unsigned char>(character);
    if (missing_ > 0 && (byte < lowest_ || byte > highest_)) flush(text);
    if (missing_ == 0) {
      start(byte, text);
      continue;
    }
    pending_ += character;
    lowest_ = 0x80, highest_ = 0xBF;
    if (--missing_ > 0) continue;
    *text += pending_;
    pending_.clear();
  }
}

void Utf8Stream::flush(std::string* text) {
  if (missing_ > 0) *text += kReplacement;
  pending_.clear();
  missing_ = 0;
}

void Utf8Stream::start(unsigned char byte, std::string* text) {
  Lead lead = classify(byte);
  if (lead.following < 0) *text += kReplacement;
  if (lead.following == 0) *text += static_cast<char>(byte);
  if (lead.following <= 0) return;
  pending_ = static_cast<char>(byte);
  missing_ = lead.following;
  lowest_ = lead.lowest, highest_ = lead.highest;
}

}  // namespace glm
