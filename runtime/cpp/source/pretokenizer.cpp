#include "pretokenizer.hpp"

#include <cstdint>

#include "unicode.hpp"
#include "utf8.hpp"

namespace glm {
namespace {

constexpr std::string_view kGlm4Regex =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kGpt2Regex =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
constexpr char32_t kLongS = 0x17F;  // Unicode case folding maps it to "s"

bool is_newline(char32_t c) { return c == '\r' || c == '\n'; }
bool is_mark(char32_t c) { return !is_space(c) && !is_letter(c) && !is_number(c); }

// A position in a text. Its methods match parts of the patterns greedily.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  bool is_at_end() const { return place_ == text_.size(); }
  size_t place() const { return place_; }
  void go_to(size_t place) { place_ = place; }

  char32_t peek() const {  // 0 at the end
    size_t place = place_;
    return is_at_end() ? 0 : read_code_point(text_, &place);
  }

  char32_t take() { return read_code_point(text_, &place_); }

  template <class IsIt>
  bool take_run(IsIt is_it, int at_most = INT32_MAX) {
    size_t start = place_;
    for (; at_most > 0 && !is_at_end() && is_it(peek()); --at_most) take();
    return place_ > start;
  }

  // Matches `[optional]?[run]+`.
  template <class IsOptional, class IsIt>
  bool take_optional_and_run(IsOptional is_optional, IsIt is_it) {
    size_t start = place_;
    if (!is_at_end() && is_optional(peek())) take();
    if (take_run(is_it)) return true;
    place_ = start;
    return take_run(is_it);
  }

 private:
  std::string_view text_;
  size_t place_ = 0;
};

char32_t fold(char32_t c) {
  if (c == kLongS) return 's';
  return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

// 's 't 're 've 'm 'll 'd
bool take_contraction(Scanner* scanner, bool ignores_case) {
  if (scanner->peek() != '\'') return false;
  scanner->take();
  size_t after_quote = scanner->place();
  auto next = [&]() -> char32_t {
    if (scanner->is_at_end()) return 0;
    char32_t c = scanner->take();
    return ignores_case ? fold(c) : c;
  };
  char32_t first = next();
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return true;
  char32_t second = next();
  bool is_two = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
                (first == 'l' && second == 'l');
  if (is_two) return true;
  scanner->go_to(after_quote - 1);
  return false;
}

// \s+(?!\S)|\s+ : before other text, all white space but its last character, if it has several.
void take_spaces(Scanner* scanner) {
  size_t last = scanner->place(), start = last;
  while (!scanner->is_at_end() && is_space(scanner->peek())) {
    last = scanner->place();
    scanner->take();
  }
  if (!scanner->is_at_end() && last > start) scanner->go_to(last);
}

// \s*[\r\n]+ : white space up to its last newline.
bool take_lines(Scanner* scanner) {
  size_t start = scanner->place(), end = start;
  while (!scanner->is_at_end() && is_space(scanner->peek())) {
    if (is_newline(scanner->take())) end = scanner->place();
  }
  scanner->go_to(end);
  return end > start;
}

void take_glm4(Scanner* scanner) {
  auto may_lead = [](char32_t c) { return !is_newline(c) && !is_letter(c) && !is_number(c); };
  auto is_blank = [](char32_t c) { return c == ' '; };
  if (take_contraction(scanner, true)) return;
  if (scanner->take_optional_and_run(may_lead, is_letter)) return;
  if (scanner->take_run(is_number, 3)) return;
  if (scanner->take_optional_and_run(is_blank, is_mark)) {
    scanner->take_run(is_newline);
    return;
  }
  if (!take_lines(scanner)) take_spaces(scanner);
}

void take_gpt2(Scanner* scanner) {
  auto is_blank = [](char32_t c) { return c == ' '; };
  if (take_contraction(scanner, false)) return;
  if (scanner->take_optional_and_run(is_blank, is_letter)) return;
  if (scanner->take_optional_and_run(is_blank, is_number)) return;
  if (!scanner->take_optional_and_run(is_blank, is_mark)) take_spaces(scanner);
}

}  // namespace

std::optional<Pattern> find_pattern(std::string_view regex) {
  if (regex == kGlm4Regex) return Pattern::kGlm4;
  if (regex == kGpt2Regex) return Pattern::kGpt2;
  return std::nullopt;
}

size_t measure_pretoken(Pattern pattern, std::string_view text) {
  if (pattern == Pattern::kNone) return text.size();
  Scanner scanner(text);
  if (pattern == Pattern::kGlm4) take_glm4(&scanner);
  if (pattern == Pattern::kGpt2) take_gpt2(&scanner);
  return scanner.place();
}

}  // namespace glm
