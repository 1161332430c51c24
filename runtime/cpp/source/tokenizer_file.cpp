// Parses tokenizer.json. What is not supported is refused with a message that names it.
#include <map>
#include <optional>

#include "errors.hpp"
#include "json_reader.hpp"
#include "tokenizer.hpp"

namespace glm {
namespace {

constexpr size_t kMaxPatterns = 8;  // each adds one level of recursion
// SentencePiece has two of three bytes. Many long ones could turn a short prompt into a gigabyte.
constexpr size_t kMaxReplacements = 4, kLongestReplacement = 4;

[[noreturn]] void refuse(const std::string& found, const std::string& expected) {
  throw Error(GLM_UNSUPPORTED, "tokenizer.json has " + found + " where " + expected +
                                   " is expected; run this folder with Python's glm-run.");
}

// null counts as false.
bool read_flag(JsonReader* json) { return !json->take_null() && json->boolean(); }

// A step of a normalizer, pre-tokenizer or decoder, with the members of all kinds.
struct Step {
  std::string type, regex, text, replacement, behavior;
  bool adds_prefix_space = false, uses_regex = true, is_inverted = false;
  int64_t start = 0, stop = 0;
  std::vector<Step> steps;
};

void read_pattern(JsonReader* json, Step* step) {
  json->object([&](const std::string& key) {
    if (key != "Regex" && key != "String") {
      refuse("a pattern of the kind '" + key + "'", "a Regex or String");
    }
    (key == "Regex" ? step->regex : step->text) = json->string();
  });
}

bool read_text(const std::string& key, JsonReader* json, Step* step) {
  static const std::map<std::string, std::string Step::*> kTexts = {
      {"type", &Step::type},
      {"behavior", &Step::behavior},
      {"content", &Step::replacement},
      {"prepend", &Step::replacement}};
  auto found = kTexts.find(key);
  if (found == kTexts.end()) return false;
  step->*found->second = json->string();
  return true;
}

Step read_step(JsonReader* json) {
  Step step;
  json->object([&](const std::string& key) {
    if (read_text(key, json, &step)) return;
    if (key == "pattern" && json->kind() == JsonReader::Kind::kObject) {
      read_pattern(json, &step);
    } else if (key == "invert") {
      step.is_inverted = read_flag(json);
    } else if (key == "add_prefix_space") {
      step.adds_prefix_space = read_flag(json);
    } else if (key == "use_regex") {
      step.uses_regex = read_flag(json);
    } else if (key == "start" || key == "stop") {
      (key == "start" ? step.start : step.stop) = json->integer();
    } else if (key == "pretokenizers" || key == "normalizers" || key == "decoders") {
      json->array([&] { step.steps.push_back(read_step(json)); });
    } else {
      json->skip();
    }
  });
  return step;
}

// The steps of a sequence, or a single step, or none.
std::vector<Step> flatten(const std::optional<Step>& step) {
  if (!step) return {};
  return step->type == "Sequence" ? step->steps : std::vector<Step>{*step};
}

void add_pattern(Pattern pattern, std::vector<Pattern>* patterns) {
  if (patterns->size() == kMaxPatterns) refuse("more than 8 patterns", "at most 8");
  patterns->push_back(pattern);
}

void add_split(const Step& step, std::vector<Pattern>* patterns) {
  std::optional<Pattern> pattern = find_pattern(step.regex);
  if (!pattern) refuse("the pattern " + step.regex, "GLM-4's or GPT-2's");
  if (step.behavior != "Isolated" || step.is_inverted) {
    refuse("a Split that is " + step.behavior + (step.is_inverted ? " and inverted" : ""),
           "an Isolated one");
  }
  add_pattern(*pattern, patterns);
}

// Returns whether the last step is ByteLevel, as byte-level BPE requires.
bool add_step(const Step& step, std::vector<Pattern>* patterns) {
  bool is_byte_level = false;
  if (step.type == "Sequence") {
    for (const Step& inner : step.steps) {
      if (is_byte_level) refuse("a step after ByteLevel", "none");
      is_byte_level = add_step(inner, patterns);
    }
    return is_byte_level;
  }
  if (step.type == "Split") {
    add_split(step, patterns);
    return false;
  }
  if (step.type != "ByteLevel") refuse("the pre-tokenizer " + step.type, "Split or ByteLevel");
  if (step.adds_prefix_space) refuse("ByteLevel with add_prefix_space", "one without");
  if (step.uses_regex) add_pattern(Pattern::kGpt2, patterns);
  return true;
}

AddedToken read_added(JsonReader* json) {
  AddedToken token;
  int64_t id = -1;
  json->object([&](const std::string& key) {
    if (key == "id") {
      id = json->integer();
    } else if (key == "content") {
      token.content = json->string();
    } else if (key == "special") {
      token.is_special = read_flag(json);
    } else if (key == "normalized") {
      token.is_normalized = read_flag(json);
    } else if (key == "single_word" || key == "lstrip" || key == "rstrip") {
      if (read_flag(json)) refuse("an added token with " + key, "one without");
    } else {
      json->skip();
    }
  });
  if (id < 0 || id > kMaxTokenId) json->fail("an added token needs an id from 0 to 1048576");
  token.id = static_cast<int32_t>(id);
  return token;
}

class ModelReader {
 public:
  ModelReader(JsonReader* json, TokenizerParts* parts) : json_(json), parts_(parts) {}

  void read() {
    std::string type;
    json_->object([&](const std::string& key) {
      if (key == "type") {
        type = json_->string();
      } else if (key == "vocab") {
        vocabulary_ = *json_;  // parsed after byte_fallback is known
        json_->skip();
      } else if (key == "merges") {
        merges_ = *json_;
        json_->skip();
      } else if (key == "ignore_merges") {
        parts_->ignores_merges = read_flag(json_);
      } else {
        check_absent(key);
      }
    });
    if (type != "BPE") refuse("the model '" + type + "'", "BPE");
    if (!merges_ || !vocabulary_) json_->fail("the BPE has no vocab or no merges");
    if (is_byte_level_ && has_unknown_) refuse("an unk_token", "byte-level BPE or byte_fallback");
    if (!is_byte_level_ && parts_->ignores_merges)
      refuse("byte_fallback and ignore_merges", "only one of them");
    parts_->vocabulary = Vocabulary(is_byte_level_);
    read_vocabulary();
    parts_->vocabulary.index_tokens();
    read_merges();
  }

 private:
  void read_vocabulary() {
    JsonReader& json = *vocabulary_;
    if (json.kind() != JsonReader::Kind::kObject) refuse("a list as vocab", "an object");
    json.object([&](const std::string& name) { parts_->vocabulary.add(json.integer(), name); });
  }

  // Refuses members that would change tokens. An unk_token is not used, as every byte has a token.
  void check_absent(const std::string& key) {
    if (json_->take_null()) return;
    if (key == "byte_fallback") {
      is_byte_level_ = !json_->boolean();
    } else if (key == "dropout") {
      if (json_->number() != 0) refuse("dropout", "none");
    } else if (key == "continuing_subword_prefix" || key == "end_of_word_suffix") {
      if (!json_->string().empty()) refuse(key, "none");
    } else if (key == "unk_token") {
      has_unknown_ = true;
      json_->skip();
    } else {
      json_->skip();
    }
  }

  void read_merges() {
    size_t count = 0;
    JsonReader counting = *merges_;
    counting.array([&] {
      counting.skip();
      ++count;
    });
    parts_->vocabulary.reserve_merges(count);
    merges_->array([&] { read_merge(&*merges_); });
  }

  // ["a", "b"], or "a b" as older versions of the library write it.
  void read_merge(JsonReader* json) {
    std::vector<std::string> names;
    if (json->kind() == JsonReader::Kind::kArray) {
      json->array([&] { names.push_back(json->string()); });
    } else {
      std::string both = json->string();
      size_t blank = both.find(' ');
      if (blank != std::string::npos) names = {both.substr(0, blank), both.substr(blank + 1)};
    }
    if (names.size() != 2) json->fail("a merge of two tokens is expected");
    parts_->vocabulary.add_merge(names[0], names[1]);
  }

  JsonReader* json_;
  TokenizerParts* parts_;
  std::optional<JsonReader> vocabulary_, merges_;
  bool is_byte_level_ = true, has_unknown_ = false;
};

struct FileSteps {
  std::optional<Step> normalizer, pre_tokenizer, decoder;
};

// A post-processor only adds special tokens, which glm_tokenize does not add.
void read_part(const std::string& key, JsonReader* json, TokenizerParts* parts, FileSteps* steps) {
  if (key == "model") {
    ModelReader(json, parts).read();
  } else if (key == "added_tokens") {
    json->array([&] { parts->added.push_back(read_added(json)); });
  } else if (key == "pre_tokenizer" && !json->take_null()) {
    steps->pre_tokenizer = read_step(json);
  } else if (key == "normalizer" && !json->take_null()) {
    steps->normalizer = read_step(json);
  } else if (key == "decoder" && !json->take_null()) {
    steps->decoder = read_step(json);
  } else if (key == "truncation" && !json->take_null()) {
    refuse("truncation", "none");
  } else if (key != "pre_tokenizer" && key != "normalizer" && key != "decoder" &&
             key != "truncation") {
    json->skip();
  }
}

void finish_byte_level(const FileSteps& steps, TokenizerParts* parts) {
  if (steps.normalizer) refuse("the normalizer " + steps.normalizer->type, "none");
  if (steps.decoder && steps.decoder->type != "ByteLevel") {
    refuse("the decoder " + steps.decoder->type, "ByteLevel");
  }
  bool is_byte_level = steps.pre_tokenizer && add_step(*steps.pre_tokenizer, &parts->patterns);
  if (!is_byte_level) refuse("no ByteLevel pre-tokenizer", "one at the end");
}

bool is_replacement(const Step& step) { return step.type == "Replace" && !step.text.empty(); }

void finish_normalizer(const FileSteps& steps, TokenizerParts* parts) {
  for (const Step& step : flatten(steps.normalizer)) {
    if (step.type != "Prepend" && !is_replacement(step)) {
      refuse("the normalizer " + step.type + (step.regex.empty() ? "" : " of " + step.regex),
             "Prepend or Replace of a text");
    }
    parts->normalizer.push_back({step.type == "Prepend" ? "" : step.text, step.replacement});
    bool is_short = step.replacement.size() <= kLongestReplacement;
    if (is_short && parts->normalizer.size() <= kMaxReplacements) continue;
    refuse("normalizers that may make a text very long", "a few short replacements");
  }
  for (const AddedToken& token : parts->added) {
    if (token.is_normalized && !parts->normalizer.empty() && !token.content.empty()) {
      refuse("an added token that is normalized", "one that is not normalized");
    }
  }
}

// The decoder must be Replace, ByteFallback, Fuse, and Strip of one space at the beginning.
void finish_sentencepiece(const FileSteps& steps, TokenizerParts* parts) {
  if (steps.pre_tokenizer) refuse("the pre-tokenizer " + steps.pre_tokenizer->type, "none");
  finish_normalizer(steps, parts);
  std::string kinds;
  for (const Step& step : flatten(steps.decoder)) {
    kinds += (kinds.empty() ? "" : ", ") + step.type;
    if (kinds == "Replace" && is_replacement(step)) {
      parts->decoder.push_back({step.text, step.replacement});
    }
    if (step.type == "Strip") {
      parts->strips_first_space = step.replacement == " " && step.start == 1 && step.stop == 0;
    }
  }
  bool is_whole = kinds == "Replace, ByteFallback, Fuse" ||
                  (kinds == "Replace, ByteFallback, Fuse, Strip" && parts->strips_first_space);
  if (is_whole && parts->decoder.size() == 1) return;
  refuse("the decoder " + (kinds.empty() ? "none" : kinds),
         "Replace, ByteFallback, Fuse, Strip of one space");
}

}  // namespace

Tokenizer parse_tokenizer(std::string_view text) {
  JsonReader json(text, "tokenizer.json");
  TokenizerParts parts;
  FileSteps steps;
  bool has_model = false;
  json.object([&](const std::string& key) {
    has_model = has_model || key == "model";
    read_part(key, &json, &parts, &steps);
  });
  json.finish();
  if (!has_model) json.fail("the model is missing");
  if (parts.vocabulary.is_byte_level()) {
    finish_byte_level(steps, &parts);
  } else {
    finish_sentencepiece(steps, &parts);
  }
  return Tokenizer(std::move(parts));
}

}  // namespace glm
