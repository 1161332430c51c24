#include "tokenizer.hpp"

#include <algorithm>
#include <queue>

#include "errors.hpp"
#include "utf8.hpp"

namespace glm {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

// A token of the pretoken. Symbols form a linked list, so that a merge moves no memory.
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

// Merges the pair of lowest rank, the leftmost of equals, until no pair is left. O(n log n).
class BpeMerger {
 public:
  BpeMerger(const Vocabulary& vocabulary, std::string_view piece) : vocabulary_(vocabulary) {
    for (size_t place = 0; place < piece.size();) {
      size_t start = place;
      if (vocabulary.is_byte_level()) {
        ++place;
      } else {
        read_code_point(piece, &place);
      }
      std::string_view letter = piece.substr(start, place - start);
      int32_t id = vocabulary.find(letter);
      if (id != kNoToken) {
        start_with(id);
      } else if (!vocabulary.is_byte_level()) {
        for (char byte : letter) start_with(vocabulary.find_byte(static_cast<unsigned char>(byte)));
      }  // the tokenizers library also drops a byte without a token
    }
    for (size_t i = 0; i + 1 < symbols_.size(); ++i) add(static_cast<uint32_t>(i));
  }

  void run(std::vector<int32_t>* ids) {
    while (!queue_.empty()) {
      Candidate best = queue_.top();
      queue_.pop();
      Merge merge = look_up(best.place);
      if (merge.token != kNoToken && merge.rank == best.rank) merge_pair(best.place, merge.token);
    }
    for (uint32_t i = symbols_.empty() ? kNone : 0; i != kNone; i = symbols_[i].next) {
      ids->push_back(symbols_[i].id);
    }
  }

 private:
  void start_with(int32_t id) {
    auto place = static_cast<uint32_t>(symbols_.size());
    symbols_.push_back({id, place == 0 ? kNone : place - 1, kNone});
    if (place > 0) symbols_[place - 1].next = place;
  }

  Merge look_up(uint32_t place) const {
    const Symbol& left = symbols_[place];
    if (left.id == kNoToken || left.next == kNone) return {};
    return vocabulary_.find_merge(left.id, symbols_[left.next].id);
  }

  void add(uint32_t place) {
    Merge merge = look_up(place);
    if (merge.token != kNoToken) queue_.push({merge.rank, place});
  }

  void merge_pair(uint32_t place, int32_t token) {
    Symbol& left = symbols_[place];
    Symbol& right = symbols_[left.next];
    left.id = token;
    left.next = right.next;
    right.id = kNoToken;  // its queued candidates become invalid
    if (left.next != kNone) symbols_[left.next].previous = place;
    if (left.previous != kNone) add(left.previous);
    add(place);
  }

  const Vocabulary& vocabulary_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<Candidate>> queue_;
};

std::string replace_all(std::string_view text, const std::vector<Replacement>& steps) {
  std::string changed(text);
  for (const auto& [from, to] : steps) {
    if (changed.empty()) break;
    std::string before;
    before.swap(changed);
    if (from.empty()) changed = to + before;
    size_t start = 0, found = 0;
    while (!from.empty() && (found = before.find(from, start)) != std::string::npos) {
      changed.append(before, start, found - start).append(to);
      start = found + from.size();
    }
    if (!from.empty()) changed.append(before, start);
  }
  return changed;
}

void require_utf8(std::string_view text) {
  size_t wrong = find_invalid_utf8(text);
  if (wrong == std::string_view::npos) return;
  throw Error(GLM_BAD_PROMPT, "the text is not valid UTF-8 at byte " + std::to_string(wrong) +
                                  "; check its encoding.");
}

}  // namespace

Tokenizer::Tokenizer(TokenizerParts parts) : parts_(std::move(parts)) {
  size_t size = parts_.vocabulary.size();
  for (const AddedToken& token : parts_.added) {
    size = std::max(size, static_cast<size_t>(token.id) + 1);
  }
  is_special_.resize(size);
  shown_.resize(size);
  if (!parts_.vocabulary.is_byte_level()) list_shown();
  index_added();
}

void Tokenizer::index_added() {
  for (const AddedToken& token : parts_.added) {
    if (token.content.empty()) continue;
    is_special_[token.id] = token.is_special;
    std::string bytes;
    bool is_spelled = parts_.vocabulary.is_byte_level() && decode_alphabet(token.content, &bytes);
    shown_[token.id] = is_spelled ? bytes : replace_all(token.content, parts_.decoder);
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

void Tokenizer::list_shown() {
  const Vocabulary& vocabulary = parts_.vocabulary;
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    std::string_view name = vocabulary.bytes(static_cast<int32_t>(id));
    int byte = vocabulary.byte_of(static_cast<int32_t>(id));
    shown_[id] =
        byte >= 0 ? std::string(1, static_cast<char>(byte)) : replace_all(name, parts_.decoder);
  }
}

const AddedToken* Tokenizer::AddedIndex::find(std::string_view text) const {
  for (const AddedToken* token : by_byte[static_cast<unsigned char>(text[0])]) {
    if (text.substr(0, token->content.size()) == token->content) return token;
  }
  return nullptr;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  require_utf8(text);
  std::vector<int32_t> ids;
  encode_pass(0, text, &ids);
  return ids;
}

std::vector<int32_t> Tokenizer::encode_around(std::string_view text,
                                              const std::vector<TextRange>& plain) const {
  require_utf8(text);
  std::vector<int32_t> ids;
  size_t start = 0, place = 0;
  auto next = plain.begin();  // the first part that does not end before `place`
  while (place < text.size()) {
    while (next != plain.end() && next->end <= place) ++next;
    if (next != plain.end() && next->begin <= place) {
      place = next->end;
      continue;
    }
    size_t end = next == plain.end() ? text.size() : next->begin;
    const AddedToken* token = find_added(text.substr(place, end - place));
    if (token == nullptr) {
      ++place;
      continue;
    }
    encode_plain(text.substr(start, place - start), &ids);
    ids.push_back(token->id);
    place += token->content.size();
    start = place;
  }
  encode_plain(text.substr(start), &ids);
  return ids;
}

// The longest added token of both passes with which the text begins.
const AddedToken* Tokenizer::find_added(std::string_view text) const {
  const AddedToken* first = passes_[0].find(text);
  const AddedToken* second = passes_[1].find(text);
  if (first == nullptr || second == nullptr) return first != nullptr ? first : second;
  return first->content.size() >= second->content.size() ? first : second;
}

void Tokenizer::encode_plain(std::string_view text, std::vector<int32_t>* ids) const {
  if (text.empty()) return;
  if (parts_.normalizer.empty()) return encode_pretokens(0, text, ids);
  std::string normalized = replace_all(text, parts_.normalizer);
  encode_pretokens(0, normalized, ids);
}

void Tokenizer::encode_pass(size_t pass, std::string_view text, std::vector<int32_t>* ids) const {
  if (pass == 1 &&
      !parts_.normalizer.empty()) {  // added tokens are not searched in normalized text
    std::string normalized = replace_all(text, parts_.normalizer);
    return encode_pretokens(0, normalized, ids);
  }
  if (pass == std::size(passes_)) return encode_pretokens(0, text, ids);
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

void Tokenizer::encode_pretokens(size_t pattern, std::string_view text,
                                 std::vector<int32_t>* ids) const {
  if (text.empty()) return;
  if (pattern == parts_.patterns.size()) return encode_pretoken(text, ids);
  while (!text.empty()) {
    size_t length = measure_pretoken(parts_.patterns[pattern], text);
    encode_pretokens(pattern + 1, text.substr(0, length), ids);
    text.remove_prefix(length);
  }
}

void Tokenizer::encode_pretoken(std::string_view piece, std::vector<int32_t>* ids) const {
  if (parts_.ignores_merges) {
    int32_t id = parts_.vocabulary.find(piece);
    if (id != kNoToken) {
      ids->push_back(id);
      return;
    }
  }
  BpeMerger(parts_.vocabulary, piece).run(ids);
}

std::string_view Tokenizer::bytes(int32_t id) const {
  return is_special(id) ? std::string_view() : spell(id);
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < size() && is_special_[id];
}

int32_t Tokenizer::find_id(std::string_view name) const {
  for (const AddedToken& token : parts_.added) {
    if (token.content == name) return token.id;
  }
  return kNoToken;
}

std::string_view Tokenizer::spell(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= size()) return {};
  return shown_[id].empty() ? parts_.vocabulary.bytes(id) : shown_[id];
}

std::vector<bool> Tokenizer::find_tokens_with(const std::vector<std::string>& texts,
                                              size_t size) const {
  if (texts.empty()) return {};
  std::vector<bool> found(size);
  for (size_t id = 0; id < size; ++id) {
    std::string_view spelled = spell(static_cast<int32_t>(id));  // the text of this token alone
    bool is_stripped = parts_.strips_first_space && !spelled.empty() && spelled[0] == ' ';
    if (is_stripped) spelled.remove_prefix(1);
    for (const std::string& text : texts) {
      if (spelled.find(text) != std::string_view::npos) found[id] = true;
    }
  }
  return found;
}

std::string Tokenizer::decode(const int32_t* ids, size_t count) const {
  if (!parts_.vocabulary.is_byte_level()) return decode_runs(ids, count);
  std::string text;
  Utf8Stream stream;
  for (size_t i = 0; i < count; ++i) stream.add(bytes(ids[i]), &text);
  stream.flush(&text);
  return text;
}

// Like ByteFallback of the tokenizers library: if one byte of a run is invalid, all become U+FFFD.
std::string Tokenizer::decode_runs(const int32_t* ids, size_t count) const {
  std::string text, run;
  auto end_run = [&] {
    bool is_valid = find_invalid_utf8(run) == std::string::npos;
    for (size_t i = 0; !is_valid && i < run.size(); ++i) append_code_point(&text, 0xFFFD);
    if (is_valid) text += run;
    run.clear();
  };
  for (size_t i = 0; i < count; ++i) {
    bool is_byte = parts_.vocabulary.byte_of(ids[i]) >= 0;
    std::string_view shown = bytes(ids[i]);
    if (is_byte) run += shown;
    if (is_byte || shown.empty()) continue;
    end_run();
    text += shown;
  }
  end_run();
  return parts_.strips_first_space && !text.empty() && text[0] == ' ' ? text.substr(1) : text;
}

}  // namespace glm
