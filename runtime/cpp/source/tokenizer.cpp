#include "tokenizer.hpp"

#include <algorithm>
#include <queue>

#include "errors.hpp"
#include "utf8.hpp"

namespace glm {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

// A run of bytes that is one token so far; a list, so that joining moves nothing.
struct Symbol {
  int32_t id;
  uint32_t previous, next;
};

struct Candidate {
  uint32_t rank, place;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : place > other.place;
  }
};

// Joins the pair of lowest rank, the first of equals, until no pair is left: n log n.
class Joiner {
 public:
  Joiner(const Vocabulary& vocabulary, std::string_view piece) : vocabulary_(vocabulary) {
    for (size_t i = 0; i < piece.size(); ++i) {
      int32_t id = vocabulary.find(piece.substr(i, 1));
      if (id == kNoToken) continue;  // as the tokenizers library does without an unknown token
      auto place = static_cast<uint32_t>(symbols_.size());
      symbols_.push_back({id, place == 0 ? kNone : place - 1, kNone});
      if (place > 0) symbols_[place - 1].next = place;
    }
    for (size_t i = 0; i + 1 < symbols_.size(); ++i) add(static_cast<uint32_t>(i));
  }

  void run(std::vector<int32_t>* ids) {
    while (!queue_.empty()) {
      Candidate best = queue_.top();
      queue_.pop();
      Merge merge = look_up(best.place);
      if (merge.token != kNoToken && merge.rank == best.rank) join(best.place, merge.token);
    }
    for (uint32_t i = symbols_.empty() ? kNone : 0; i != kNone; i = symbols_[i].next) {
      ids->push_back(symbols_[i].id);
    }
  }

 private:
  Merge look_up(uint32_t place) const {
    const Symbol& left = symbols_[place];
    if (left.id == kNoToken || left.next == kNone) return {};
    return vocabulary_.find_merge(left.id, symbols_[left.next].id);
  }

  void add(uint32_t place) {
    Merge merge = look_up(place);
    if (merge.token != kNoToken) queue_.push({merge.rank, place});
  }

  void join(uint32_t place, int32_t token) {
    Symbol& left = symbols_[place];
    Symbol& right = symbols_[left.next];
    left.id = token;
    left.next = right.next;
    right.id = kNoToken;  // what waits for it is void
    if (left.next != kNone) symbols_[left.next].previous = place;
    if (left.previous != kNone) add(left.previous);
    add(place);
  }

  const Vocabulary& vocabulary_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<Candidate>> queue_;
};

}  // namespace

Tokenizer::Tokenizer(TokenizerParts parts) : parts_(std::move(parts)) {
  size_t size = parts_.vocabulary.size();
  for (const AddedToken& token : parts_.added) {
    size = std::max(size, static_cast<size_t>(token.id) + 1);
  }
  is_special_.resize(size);
  added_bytes_.resize(size);
  for (const AddedToken& token : parts_.added) {
    if (token.content.empty()) continue;
    is_special_[token.id] = token.is_special;
    std::string bytes;
    bool is_spelled = spell_bytes(token.content, &bytes);
    added_bytes_[token.id] = is_spelled ? bytes : token.content;
    auto first = static_cast<unsigned char>(token.content[0]);
    passes_[token.is_normalized ? 1 : 0].by_byte[first].push_back(&token);
  }
  auto is_longer = [](const AddedToken* left, const AddedToken* right) {
    return left->content.size() > right->content.size();
  };
  for (AddedIndex& pass : passes_) {
    for (auto& tokens : pass.by_byte) std::stable_sort(tokens.begin(), tokens.end(), is_longer);
  }
}

const AddedToken* Tokenizer::AddedIndex::find(std::string_view text) const {
  for (const AddedToken* token : by_byte[static_cast<unsigned char>(text[0])]) {
    if (text.substr(0, token->content.size()) == token->content) return token;
  }
  return nullptr;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  size_t wrong = find_invalid_utf8(text);
  if (wrong != std::string_view::npos) {
    throw Error(GLM_BAD_PROMPT, "the text is not valid UTF-8 at byte " + std::to_string(wrong) +
                                    "; check the encoding of where it comes from.");
  }
  std::vector<int32_t> ids;
  encode_pass(0, text, &ids);
  return ids;
}

void Tokenizer::encode_pass(size_t pass, std::string_view text, std::vector<int32_t>* ids) const {
  if (pass == std::size(passes_)) return encode_pieces(0, text, ids);
  size_t start = 0;
  for (size_t place = 0; place < text.size();) {
    const AddedToken* token = passes_[pass].find(text.substr(place));
    if (token == nullptr) {
      ++place;
      continue;
    }
    encode_pass(pass + 1, text.substr(start, place - start), ids);
    ids->push_back(token->id);
    place += token->content.size();
    start = place;
  }
  encode_pass(pass + 1, text.substr(start), ids);
}

void Tokenizer::encode_pieces(size_t pattern, std::string_view text,
                              std::vector<int32_t>* ids) const {
  if (text.empty()) return;
  if (pattern == parts_.patterns.size()) return encode_piece(text, ids);
  while (!text.empty()) {
    size_t length = measure_piece(parts_.patterns[pattern], text);
    encode_pieces(pattern + 1, text.substr(0, length), ids);
    text.remove_prefix(length);
  }
}

void Tokenizer::encode_piece(std::string_view piece, std::vector<int32_t>* ids) const {
  if (parts_.ignores_merges) {
    int32_t id = parts_.vocabulary.find(piece);
    if (id != kNoToken) {
      ids->push_back(id);
      return;
    }
  }
  Joiner(parts_.vocabulary, piece).run(ids);
}

std::string_view Tokenizer::bytes(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= size() || is_special_[id]) return {};
  return added_bytes_[id].empty() ? parts_.vocabulary.bytes(id) : added_bytes_[id];
}

std::string Tokenizer::decode(const int32_t* ids, size_t count) const {
  std::string text;
  Utf8Stream stream;
  for (size_t i = 0; i < count; ++i) stream.add(bytes(ids[i]), &text);
  stream.flush(&text);
  return text;
}

}  // namespace glm
