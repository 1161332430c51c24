#include "json_reader.hpp"

#include <charconv>

#include "errors.hpp"
#include "utf8.hpp"

namespace glm {
namespace {

constexpr int kMaxDepth = 64;  // tokenizer.json has 6
// Python's limits depend on its version; these are near those of 3.11.
constexpr int kMaxCallDepth = 900;
constexpr size_t kMaxCallDigits = 4300;

bool is_digit(char character) { return character >= '0' && character <= '9'; }

}  // namespace

JsonReader::JsonReader(std::string_view text, std::string name, bool is_utf8)
    : text_(text), name_(std::move(name)) {
  if (is_utf8) return;
  size_t wrong = find_invalid_utf8(text);
  if (wrong == std::string_view::npos) return;
  place_ = wrong;
  fail("not valid UTF-8");
}

JsonReader JsonReader::of_call(std::string_view text) {
  JsonReader reader(text, "a call", true);
  reader.is_call_ = true;
  return reader;
}

void JsonReader::fail(const std::string& what) const {
  throw Error(GLM_BAD_FOLDER, name_ + " is invalid at byte " + std::to_string(place_) + ": " +
                                  what + "; export the folder again.");
}

JsonReader::Kind JsonReader::kind() {
  skip_blanks();
  char next = place_ < text_.size() ? text_[place_] : '\0';
  if (next == '{') return Kind::kObject;
  if (next == '[') return Kind::kArray;
  if (next == '"') return Kind::kString;
  if (next == '-' || is_digit(next)) return Kind::kNumber;
  if (next == 't' || next == 'f') return Kind::kBoolean;
  if (next == 'n') return Kind::kNull;
  fail(place_ < text_.size() ? "a JSON value is expected" : "the file ends too early");
}

std::string JsonReader::string() {
  std::string value;
  take_string(&value);
  return value;
}

void JsonReader::take_string(std::string* value) {
  if (kind() != Kind::kString) fail("a string is expected");
  ++place_;
  while (true) {
    size_t end = place_;
    while (end < text_.size() && text_[end] != '"' && text_[end] != '\\' &&
           static_cast<unsigned char>(text_[end]) >= 0x20) {
      ++end;
    }
    if (value != nullptr) value->append(text_, place_, end - place_);
    place_ = end;
    if (end == text_.size()) fail("the file ends inside a string");
    if (text_[end] == '"') break;
    if (text_[end] != '\\') fail("a string contains a control character");
    ++place_;
    read_escape(value);
  }
  ++place_;
}

void JsonReader::read_escape(std::string* text) {
  static constexpr std::string_view kLetters = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
  char letter = place_ < text_.size() ? text_[place_] : '\0';
  ++place_;
  size_t index = letter == '\0' ? std::string_view::npos : kLetters.find(letter);
  if (index != std::string_view::npos) {
    if (text != nullptr) *text += kMeanings[index];
    return;
  }
  if (letter != 'u') fail("a string contains an unknown escape");
  char32_t code_point = read_hex();
  if (code_point >= 0xD800 && code_point <= 0xDFFF) code_point = read_low_half(code_point);
  if (text != nullptr) append_code_point(text, code_point);
}

// Reads the second half of a pair of surrogates.
char32_t JsonReader::read_low_half(char32_t high) {
  bool is_pair = high < 0xDC00 && text_.substr(std::min(place_, text_.size()), 2) == "\\u";
  size_t before = place_;
  place_ += is_pair ? 2 : 0;
  unsigned low = is_pair ? read_hex() : 0;
  if (low >= 0xDC00 && low <= 0xDFFF) return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  if (!is_call_) fail("a surrogate is not paired");
  place_ = before;
  return 0xFFFD;
}

unsigned JsonReader::read_hex() {
  std::string_view digits = text_.substr(std::min(place_, text_.size()), 4);
  unsigned value = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  bool is_whole = digits.size() == 4 && end == digits.data() + 4;
  if (!is_whole || error != std::errc() || digits[0] == '-') {
    fail("four hexadecimal digits are expected");
  }
  place_ += 4;
  return value;
}

// Follows the grammar of JSON, because from_chars accepts more.
std::string_view JsonReader::number_text() {
  if (kind() != Kind::kNumber) fail("a number is expected");
  size_t start = place_;
  if (text_[place_] == '-') ++place_;
  size_t digits = place_;
  bool is_zero = place_ < text_.size() && text_[place_] == '0';
  if (is_zero) ++place_;
  if (!is_zero && !take_digits()) fail("a digit is expected");
  char next = place_ < text_.size() ? text_[place_] : '\0';
  bool is_whole = next != '.' && next != 'e' && next != 'E';
  if (is_call_ && is_whole && place_ - digits > kMaxCallDigits) fail("an integer is too long");
  if (place_ < text_.size() && text_[place_] == '.') {
    ++place_;
    if (!take_digits()) fail("a digit is expected");
  }
  if (place_ < text_.size() && (text_[place_] == 'e' || text_[place_] == 'E')) {
    ++place_;
    if (place_ < text_.size() && (text_[place_] == '+' || text_[place_] == '-')) ++place_;
    if (!take_digits()) fail("a digit is expected");
  }
  return text_.substr(start, place_ - start);
}

bool JsonReader::take_digits() {
  size_t start = place_;
  while (place_ < text_.size() && is_digit(text_[place_])) ++place_;
  return place_ > start;
}

double JsonReader::number() {
  std::string_view digits = number_text();
  double value = 0;
  auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (result.ec != std::errc()) fail("a number is out of range");
  return value;
}

int64_t JsonReader::integer() {
  std::string_view digits = number_text();
  int64_t value = 0;
  auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  bool is_whole = result.ptr == digits.data() + digits.size();
  if (result.ec != std::errc() || !is_whole) fail("a 64-bit integer is expected");
  return value;
}

bool JsonReader::boolean() {
  if (kind() != Kind::kBoolean) fail("true or false is expected");
  bool value = text_[place_] == 't';
  expect_word(value ? "true" : "false");
  return value;
}

bool JsonReader::take_null() {
  if (kind() != Kind::kNull) return false;
  expect_word("null");
  return true;
}

void JsonReader::skip() {
  switch (kind()) {
    case Kind::kObject:
      return object([this](const std::string&) { skip(); });
    case Kind::kArray:
      return array([this] { skip(); });
    case Kind::kString:
      take_string(nullptr);
      return;
    case Kind::kNumber:
      number_text();
      return;
    case Kind::kBoolean:
      boolean();
      return;
    case Kind::kNull:
      take_null();
      return;
  }
}

std::string_view JsonReader::raw() {
  skip_blanks();
  size_t begin = place_;
  skip();
  return text_.substr(begin, place_ - begin);
}

void JsonReader::finish() {
  skip_blanks();
  if (place_ != text_.size()) fail("the file continues after its value");
}

void JsonReader::enter(char opening, const char* expected) {
  skip_blanks();
  if (!take(opening)) fail(std::string(expected) + " is expected");
  if (++depth_ > (is_call_ ? kMaxCallDepth : kMaxDepth)) fail("values are nested too deeply");
}

void JsonReader::skip_blanks() {
  while (place_ < text_.size()) {
    char next = text_[place_];
    if (next != ' ' && next != '\n' && next != '\r' && next != '\t') return;
    ++place_;
  }
}

bool JsonReader::take(char character) {
  skip_blanks();
  if (place_ >= text_.size() || text_[place_] != character) return false;
  ++place_;
  return true;
}

void JsonReader::expect(char character) {
  if (!take(character)) fail(std::string("'") + character + "' is expected");
}

void JsonReader::expect_word(std::string_view word) {
  if (text_.substr(place_, word.size()) != word) fail("a JSON value is expected");
  place_ += word.size();
}

}  // namespace glm
