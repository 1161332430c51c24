// The tokens of a BPE: bytes to id, id to bytes, and which two tokens become one.
//
// A byte-level one's names are spelled in letters that stand for bytes; here they are the bytes
// themselves. SentencePiece's are taken as they are written, and "<0x0A>" stands for a byte.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace glm {

constexpr int32_t kNoToken = -1;
constexpr int64_t kMaxTokenId = 1 << 20;  // a bound for memory; GLM-4 has 151,552

struct Merge {
  uint32_t rank = UINT32_MAX;  // the lowest is joined first
  int32_t token = kNoToken;
};

class Vocabulary {
 public:
  explicit Vocabulary(bool is_byte_level = true) : is_byte_level_(is_byte_level) {}
  bool is_byte_level() const { return is_byte_level_; }

  // A token by the letters of its name. One that is not spelled in the letters of bytes (an added
  // token such as "<think>" in Chinese) stands for its text, and is never found in text by BPE.
  void add(int64_t id, std::string_view name);
  void add_merge(std::string_view left, std::string_view right);  // by their names, in order

  int32_t find(std::string_view bytes) const;
  Merge find_merge(int32_t left, int32_t right) const;
  int32_t find_byte(unsigned char byte) const { return byte_ids_[byte]; }  // SentencePiece's
  int byte_of(int32_t id) const;  // the other way round; -1 if it stands for no byte
  std::string_view bytes(int32_t id) const;  // empty where there is no such token
  size_t size() const { return tokens_.size(); }  // one more than the largest id

  void index_tokens();                   // after the last `add`; before `add_merge`
  void reserve_merges(size_t count);     // before the first

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
  std::vector<Token> tokens_;        // by id
  std::vector<int32_t> index_;       // ids, by the hash of their bytes; a power of two of places
  std::vector<MergeEntry> merges_;   // by the hash of the pair; likewise
  uint32_t num_merges_ = 0;
};

// Letters to bytes; false if one stands for no byte.
bool spell_bytes(std::string_view letters, std::string* bytes);

}  // namespace glm
