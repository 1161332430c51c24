#include "vocabulary.hpp"

#include <algorithm>
#include <cstdio>
#include <functional>

#include "errors.hpp"
#include "utf8.hpp"

namespace glm {
namespace {

constexpr uint32_t kMaxRank = UINT32_MAX - 1;

// GPT-2's alphabet (encoder.py): visible Latin-1 stands for itself, U+0100 and later for other
// bytes.
std::array<int16_t, 512> make_alphabet() {
  std::array<int16_t, 512> byte_of{};
  byte_of.fill(-1);
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    bool is_visible = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    byte_of[is_visible ? byte : next++] = static_cast<int16_t>(byte);
  }
  return byte_of;
}

// At most half of the places are used, so that searches are short.
size_t choose_places(size_t count) {
  size_t places = 16;
  while (places < 2 * count) places *= 2;
  return places;
}

uint64_t mix(uint64_t value) {  // splitmix64's finalizer
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9u;
  value = (value ^ value >> 27) * 0x94D049BB133111EBu;
  return value ^ value >> 31;
}

uint64_t make_pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

bool decode_alphabet(std::string_view letters, std::string* bytes) {
  static const std::array<int16_t, 512> kByteOf = make_alphabet();
  for (size_t place = 0; place < letters.size();) {
    char32_t letter = read_code_point(letters, &place);
    if (letter >= kByteOf.size() || kByteOf[letter] < 0) return false;
    *bytes += static_cast<char>(kByteOf[letter]);
  }
  return true;
}

std::string Vocabulary::spell(std::string_view name) const {
  std::string bytes;
  if (!is_byte_level_) return std::string(name);
  if (decode_alphabet(name, &bytes)) return bytes;
  throw Error(GLM_BAD_FOLDER, "tokenizer.json: the merge of '" + std::string(name) +
                                  "' has characters outside of the byte-level alphabet; "
                                  "export the folder again.");
}

void Vocabulary::add(int64_t id, std::string_view name) {
  if (id < 0 || id > kMaxTokenId) {
    throw Error(GLM_BAD_FOLDER, "tokenizer.json: a token has the id " + std::to_string(id) +
                                    " where 0 to " + std::to_string(kMaxTokenId) +
                                    " is expected; export the folder again.");
  }
  if (static_cast<size_t>(id) >= tokens_.size()) tokens_.resize(id + 1);
  std::string spelled;
  bool is_in_letters = is_byte_level_ && decode_alphabet(name, &spelled);
  bool is_spelled = is_in_letters || !is_byte_level_;
  std::string_view stored = is_in_letters ? std::string_view(spelled) : name;
  tokens_[id] = {static_cast<uint32_t>(bytes_.size()), static_cast<uint32_t>(stored.size()), true,
                 is_spelled};
  bytes_ += stored;
  if (bytes_.size() > UINT32_MAX) {
    throw Error(GLM_BAD_FOLDER,
                "tokenizer.json: the tokens are longer than 4 GB in all; export the folder again.");
  }
}

void Vocabulary::index_tokens() {
  index_.assign(choose_places(tokens_.size()), kNoToken);
  for (size_t id = 0; id < tokens_.size(); ++id) {
    if (!tokens_[id].is_used || !tokens_[id].is_spelled) continue;
    index_[find_place(bytes(static_cast<int32_t>(id)))] = static_cast<int32_t>(id);
  }
  if (!is_byte_level_) index_bytes();
}

void Vocabulary::index_bytes() {
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    byte_ids_[byte] = find(name);
    if (byte_ids_[byte] != kNoToken) continue;
    throw Error(GLM_UNSUPPORTED, std::string("tokenizer.json has byte_fallback but no token ") +
                                     name +
                                     ", and every byte needs a token; run this folder "
                                     "with Python's glm-run.");
  }
}

int Vocabulary::byte_of(int32_t id) const {
  if (is_byte_level_) return -1;
  auto found = std::find(byte_ids_.begin(), byte_ids_.end(), id);
  return found == byte_ids_.end() ? -1 : static_cast<int>(found - byte_ids_.begin());
}

void Vocabulary::reserve_merges(size_t count) {
  merges_.assign(choose_places(count), MergeEntry());
}

void Vocabulary::add_merge(std::string_view left, std::string_view right) {
  std::string left_bytes = spell(left), right_bytes = spell(right);
  int32_t left_id = find(left_bytes), right_id = find(right_bytes);
  int32_t token = find(left_bytes + right_bytes);
  if (left_id == kNoToken || right_id == kNoToken || token == kNoToken) {
    throw Error(GLM_BAD_FOLDER, "tokenizer.json merges '" + std::string(left) + "' and '" +
                                    std::string(right) +
                                    "', but one of them or the result is not in the vocabulary; "
                                    "export the folder again.");
  }
  // The last rank of a repeated pair counts, as in the tokenizers library.
  MergeEntry& entry = merges_[find_merge_place(make_pair_key(left_id, right_id))];
  entry.pair = make_pair_key(left_id, right_id);
  entry.merge = {std::min(num_merges_++, kMaxRank), token};
}

int32_t Vocabulary::find(std::string_view bytes) const { return index_[find_place(bytes)]; }

Merge Vocabulary::find_merge(int32_t left, int32_t right) const {
  return merges_[find_merge_place(make_pair_key(left, right))].merge;
}

std::string_view Vocabulary::bytes(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= tokens_.size()) return {};
  return std::string_view(bytes_).substr(tokens_[id].start, tokens_[id].length);
}

// The place where the bytes are stored, or a free place for them.
size_t Vocabulary::find_place(std::string_view wanted) const {
  size_t place = std::hash<std::string_view>()(wanted) & (index_.size() - 1);
  while (index_[place] != kNoToken && bytes(index_[place]) != wanted) {
    place = (place + 1) & (index_.size() - 1);
  }
  return place;
}

size_t Vocabulary::find_merge_place(uint64_t pair) const {
  size_t place = mix(pair) & (merges_.size() - 1);
  while (merges_[place].pair != UINT64_MAX && merges_[place].pair != pair) {
    place = (place + 1) & (merges_.size() - 1);
  }
  return place;
}

}  // namespace glm
