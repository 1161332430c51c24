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
constexpr char32_t kLongS = 0x17F;  // its other case is "s", by Unicode's case folding

bool is_newline(char32_t c) { return c == '\r' || c == '\n'; }
bool is_mark(char32_t c) { return !is_space(c) && !is_letter(c) && !is_number(c); }

// Walks over a text; the parts of the patterns, each greedy.
class Walk {
 public:
  explicit Walk(std::string_view text) : text_(text) {}

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

  // `optional`, if it stands here, and a run: both, or neither.
  template <class IsOptional, class IsIt>
  bool take_with(IsOptional is_optional, IsIt is_it) {
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
bool take_contraction(Walk* walk, bool ignores_case) {
  if (walk->peek() != '\'') return false;
  walk->take();
  size_t after_quote = walk->place();
  auto next = [&]() -> char32_t {
    if (walk->is_at_end()) return 0;
    char32_t c = walk->take();
    return ignores_case ? fold(c) : c;
  };
  char32_t first = next();
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return true;
  char32_t second = next();
  bool is_two = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
                (first == 'l' && second == 'l');
  if (is_two) return true;
  walk->go_to(after_quote - 1);
  return false;
}

// \s+(?!\S)|\s+ : a run gives its last character away to what follows, if it has another.
void take_spaces(Walk* walk) {
  size_t last = walk->place(), start = last;
  while (!walk->is_at_end() && is_space(walk->peek())) {
    last = walk->place();
    walk->take();
  }
  if (!walk->is_at_end() && last > start) walk->go_to(last);
}

// \s*[\r\n]+ : up to the last newline of the run.
bool take_lines(Walk* walk) {
  size_t start = walk->place(), end = start;
  while (!walk->is_at_end() && is_space(walk->peek())) {
    if (is_newline(walk->take())) end = walk->place();
  }
  walk->go_to(end);
  return end > start;
}

void take_glm4(Walk* walk) {
  auto may_lead = [](char32_t c) { return !is_newline(c) && !is_letter(c) && !is_number(c); };
  auto is_blank = [](char32_t c) { return c == ' '; };
  if (take_contraction(walk, true)) return;
  if (walk->take_with(may_lead, is_letter)) return;
  if (walk->take_run(is_number, 3)) return;
  if (walk->take_with(is_blank, is_mark)) {
    walk->take_run(is_newline);
    return;
  }
  if (!take_lines(walk)) take_spaces(walk);
}

void take_gpt2(Walk* walk) {
  auto is_blank = [](char32_t c) { return c == ' '; };
  if (take_contraction(walk, false)) return;
  if (walk->take_with(is_blank, is_letter)) return;
  if (walk->take_with(is_blank, is_number)) return;
  if (!walk->take_with(is_blank, is_mark)) take_spaces(walk);
}

}  // namespace

std::optional<Pattern> find_pattern(std::string_view regex) {
  if (regex == kGlm4Regex) return Pattern::kGlm4;
  if (regex == kGpt2Regex) return Pattern::kGpt2;
  return std::nullopt;
}

size_t measure_piece(Pattern pattern, std::string_view text) {
  if (pattern == Pattern::kNone) return text.size();
  Walk walk(text);
  if (pattern == Pattern::kGlm4) take_glm4(&walk);
  if (pattern == Pattern::kGpt2) take_gpt2(&walk);
  return walk.place();
}

}  // namespace glm
