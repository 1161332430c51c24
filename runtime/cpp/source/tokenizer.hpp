// Text to ids and back, as the tokenizer.json of a BPE says: byte-level, or SentencePiece's, whose
// tokens are of characters, and of bytes where a character is no token. Never changes once read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pretokenizer.hpp"
#include "vocabulary.hpp"

namespace glm {

// A token that is found in the text as it is written, before anything else.
struct AddedToken {
  int32_t id = kNoToken;
  std::string content;
  bool is_special = false;     // gives no text
  bool is_normalized = false;  // is looked for after those that are not
};

// What is done to text before it is cut.
struct Replacement {
  std::string from, to;  // every `from`; an empty one: put `to` before all, unless nothing is there
};

// What a tokenizer.json holds, as far as it is supported.
struct TokenizerParts {
  Vocabulary vocabulary;
  std::vector<Replacement> normalizer, decoder;  // SentencePiece's alone
  bool strips_first_space = false;
  std::vector<AddedToken> added;
  std::vector<Pattern> patterns;  // each cuts the pieces of the one before
  bool ignores_merges = false;    // a piece that is a token as a whole is taken as it is
};

class Tokenizer {
 public:
  explicit Tokenizer(TokenizerParts parts);
  Tokenizer(Tokenizer&&) = default;  // a copy would point into the original

  // Throws GLM_BAD_PROMPT: the text is not UTF-8.
  std::vector<int32_t> encode(std::string_view text) const;
  std::string decode(const int32_t* ids, size_t count) const;  // special tokens left out

  std::string_view bytes(int32_t id) const;  // what a token stands for; nothing if it is special
  std::string_view spell(int32_t id) const;  // the same, also of a special one
  bool is_special(int32_t id) const;
  bool is_byte_level() const { return parts_.vocabulary.is_byte_level(); }

  // By id up to `size`, whether a token's text holds one of `texts`; empty if there are none.
  std::vector<bool> find_tokens_with(const std::vector<std::string>& texts, size_t size) const;
  size_t size() const { return is_special_.size(); }  // one more than the largest id

 private:
  // The added tokens of one pass, by their first byte, the longest first.
  struct AddedIndex {
    std::vector<const AddedToken*> by_byte[256];
    const AddedToken* find(std::string_view text) const;
  };

  void encode_pass(size_t pass, std::string_view text, std::vector<int32_t>* ids) const;
  void encode_pieces(size_t pattern, std::string_view text, std::vector<int32_t>* ids) const;
  void encode_piece(std::string_view piece, std::vector<int32_t>* ids) const;
  void index_added();
  void list_shown();
  std::string decode_runs(const int32_t* ids, size_t count) const;

  TokenizerParts parts_;
  AddedIndex passes_[2];
  std::vector<bool> is_special_;
  std::vector<std::string> shown_;  // by id, where it is not what the vocabulary has
};

// Reads a tokenizer.json. Throws GLM_BAD_FOLDER, or GLM_UNSUPPORTED for what is named in README.md.
Tokenizer parse_tokenizer(std::string_view json);

}  // namespace glm
