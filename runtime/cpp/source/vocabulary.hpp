// The vocabulary and merges of a BPE.
//
// In byte-level BPE, tokenizer.json writes tokens in an alphabet whose letters stand for bytes.
// This class stores the bytes. Tokens of SentencePiece are stored as they are written; "<0x0A>"
// stands for a byte.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace glm {

constexpr int32_t kNoToken = -1;
constexpr int64_t kMaxTokenId = 1 << 20;  // limits memory; GLM-4 has 151,552 tokens

struct Merge {
  uint32_t rank = UINT32_MAX;  // the lowest rank is merged first
  int32_t token = kNoToken;
};

class Vocabulary {
 public:
  explicit Vocabulary(bool is_byte_level = true) : is_byte_level_(is_byte_level) {}
  bool is_byte_level() const { return is_byte_level_; }

  // Adds a token. A name with other characters than the byte-level alphabet (for example an added
  // token in Chinese) is stored as its text, and BPE never produces it.
  void add(int64_t id, std::string_view name);
  void add_merge(std::string_view left, std::string_view right);  // in order of rank

  int32_t find(std::string_view bytes) const;
  Merge find_merge(int32_t left, int32_t right) const;
  int32_t find_byte(unsigned char byte) const { return byte_ids_[byte]; }  // for SentencePiece
  int byte_of(int32_t id) const;                  // the byte of a token, or -1
  std::string_view bytes(int32_t id) const;       // empty if there is no such token
  size_t size() const { return tokens_.size(); }  // largest id + 1

  void index_tokens();                // call after the last `add` and before `add_merge`
  void reserve_merges(size_t count);  // call before the first `add_merge`

 private:
  struct Token {
    uint32_t start = 0, length = 0;
    bool is_used = false, is_spelled = false;
  };
  struct MergeEntry {
    uint64_t pair = UINT64_MAX;
    Merge merge;
  };

  std::string spell(std::string_view name) const;
  void index_bytes();
  size_t find_place(std::string_view bytes) const;
  size_t find_merge_place(uint64_t pair) const;

  bool is_byte_level_;
  std::array<int32_t, 256> byte_ids_{};
  std::string bytes_;
  std::vector<Token> tokens_;       // by id
  std::vector<int32_t> index_;      // ids by the hash of their bytes; the size is a power of two
  std::vector<MergeEntry> merges_;  // by the hash of the pair; the size is a power of two
  uint32_t num_merges_ = 0;
};

// Converts letters of the byte-level alphabet to bytes; returns false for other letters.
bool decode_alphabet(std::string_view letters, std::string* bytes);

}  // namespace glm
