// Converts text to token ids and back, with the BPE of a tokenizer.json: byte-level BPE, or
// SentencePiece BPE with byte fallback for characters without a token. Immutable.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pretokenizer.hpp"
#include "vocabulary.hpp"

namespace glm {

// A token that is searched in the text before BPE.
struct AddedToken {
  int32_t id = kNoToken;
  std::string content;
  bool is_special = false;     // has no text when it is decoded
  bool is_normalized = false;  // searched after the tokens that are not normalized
};

// A part of a text, in bytes.
struct TextRange {
  size_t begin, end;
};

// A step of the normalizer or decoder.
struct Replacement {
  std::string from, to;  // replaces `from` by `to`; if `from` is empty, prepends `to` to text
};

// The supported contents of a tokenizer.json.
struct TokenizerParts {
  Vocabulary vocabulary;
  std::vector<Replacement> normalizer, decoder;  // for SentencePiece only
  bool strips_first_space = false;
  std::vector<AddedToken> added;
  std::vector<Pattern> patterns;  // each splits the pretokens of the one before
  bool ignores_merges = false;    // a pretoken that is in the vocabulary becomes this token
};

class Tokenizer {
 public:
  explicit Tokenizer(TokenizerParts parts);
  Tokenizer(Tokenizer&&) = default;  // the index points into this object

  // Throws GLM_BAD_PROMPT if the text is not UTF-8.
  std::vector<int32_t> encode(std::string_view text) const;
  // The same, but no added token is searched inside of the `plain` parts, which are in order.
  std::vector<int32_t> encode_around(std::string_view text,
                                     const std::vector<TextRange>& plain) const;
  std::string decode(const int32_t* ids, size_t count) const;  // without special tokens

  std::string_view bytes(int32_t id) const;  // bytes of a token; empty for a special token
  std::string_view spell(int32_t id) const;  // bytes of any token
  bool is_special(int32_t id) const;
  int32_t find_id(std::string_view name) const;  // of an added token; kNoToken if there is none
  bool is_byte_level() const { return parts_.vocabulary.is_byte_level(); }

  // For each id below `size`, whether its text contains one of `texts`. Empty if there are no
  // texts.
  std::vector<bool> find_tokens_with(const std::vector<std::string>& texts, size_t size) const;
  size_t size() const { return is_special_.size(); }  // largest id + 1

 private:
  // The added tokens of one pass by their first byte, in order of descending length.
  struct AddedIndex {
    std::vector<const AddedToken*> by_byte[256];
    const AddedToken* find(std::string_view text) const;
  };

  void encode_pass(size_t pass, std::string_view text, std::vector<int32_t>* ids) const;
  const AddedToken* find_added(std::string_view text) const;
  void encode_plain(std::string_view text, std::vector<int32_t>* ids) const;
  void encode_pretokens(size_t pattern, std::string_view text, std::vector<int32_t>* ids) const;
  void encode_pretoken(std::string_view piece, std::vector<int32_t>* ids) const;
  void index_added();
  void list_shown();
  std::string decode_runs(const int32_t* ids, size_t count) const;

  TokenizerParts parts_;
  AddedIndex passes_[2];
  std::vector<bool> is_special_;
  std::vector<std::string> shown_;  // bytes by id, if they differ from the vocabulary
};

// Parses a tokenizer.json. Throws GLM_BAD_FOLDER, or GLM_UNSUPPORTED as docs/cpp.md lists.
Tokenizer parse_tokenizer(std::string_view json);

}  // namespace glm
