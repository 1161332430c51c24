// Converts tokens to text as they are generated. Only whole characters are returned, and special
// tokens have no text. SentencePiece tokens are decoded in a window of a few tokens, as in Python,
// because the text of invalid bytes depends on the bytes around them.
#pragma once

#include "tokenizer.hpp"
#include "utf8.hpp"

namespace glm {

class TextStream {
 public:
  // `tokenizer` must outlive this.
  explicit TextStream(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  std::string add(int32_t token);
  std::string flush();  // returns the rest at the end of the answer
  bool is_complete() const { return pending_.empty() && utf8_.is_complete(); }

 private:
  std::string decode_pending() const;
  void move_window();

  const Tokenizer& tokenizer_;
  Utf8Stream utf8_;  // for byte-level BPE
  std::vector<int32_t> shown_,
      pending_;  // for SentencePiece: last tokens with text, tokens without
};

}  // namespace glm
