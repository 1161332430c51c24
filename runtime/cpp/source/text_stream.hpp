// Tokens to text while they arrive: whole characters only, special tokens give none.
#pragma once

#include "tokenizer.hpp"
#include "utf8.hpp"

namespace glm {

class TextStream {
 public:
  // `tokenizer` must outlive this.
  explicit TextStream(const Tokenizer& tokenizer)
      : tokenizer_(tokenizer), strips_space_(tokenizer.strips_first_space()) {}

  std::string add(int32_t token);
  std::string flush();  // what is left when no more tokens come
  bool is_complete() const { return utf8_.is_complete(); }

 private:
  void strip(std::string* text);  // of the first space of the answer, where there is to be none

  const Tokenizer& tokenizer_;
  Utf8Stream utf8_;
  bool strips_space_;
};

}  // namespace glm
