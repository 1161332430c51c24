// Tokens to text while they arrive: whole characters only, special tokens give none. SentencePiece's
// are decoded over a window of a few tokens, as in Python: what becomes of bytes that are no
// character depends on the bytes around them.
#pragma once

#include "tokenizer.hpp"
#include "utf8.hpp"

namespace glm {

class TextStream {
 public:
  // `tokenizer` must outlive this.
  explicit TextStream(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  std::string add(int32_t token);
  std::string flush();  // what is left when no more tokens come
  bool is_complete() const { return pending_.empty() && utf8_.is_complete(); }

 private:
  std::string decode_pending() const;
  void move_window();

  const Tokenizer& tokenizer_;
  Utf8Stream utf8_;                       // byte-level
  std::vector<int32_t> shown_, pending_;  // SentencePiece's: the last ones with text, those without
};

}  // namespace glm
