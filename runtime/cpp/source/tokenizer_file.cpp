// tokenizer.json to its parts: what is supported is taken, everything else refused by name.
#include "errors.hpp"
#include "json_reader.hpp"
#include "tokenizer.hpp"

namespace glm {
namespace {

[[noreturn]] void refuse(const std::string& found, const std::string& expected) {
  throw Error(GLM_UNSUPPORTED, "tokenizer.json has " + found + " where " + expected +
                                   " is expected; run this folder with Python's glm-run.");
}

// Sets `flag`; null counts as false.
bool read_flag(JsonReader* json) { return !json->take_null() && json->boolean(); }

// A step of a pre-tokenizer or decoder, with what any kind of it may say.
struct Step {
  std::string type, regex, behavior;
  bool adds_prefix_space = false, uses_regex = true, is_inverted = false;
  std::vector<Step> steps;
};

void read_pattern(JsonReader* json, Step* step) {
  json->object([&](const std::string& key) {
    if (key != "Regex") refuse("a pattern of the kind '" + key + "'", "a Regex");
    step->regex = json->string();
  });
}

Step read_step(JsonReader* json) {
  Step step;
  json->object([&](const std::string& key) {
    if (key == "type") {
      step.type = json->string();
    } else if (key == "pattern" && json->kind() == JsonReader::Kind::kObject) {
      read_pattern(json, &step);
    } else if (key == "behavior") {
      step.behavior = json->string();
    } else if (key == "invert") {
      step.is_inverted = read_flag(json);
    } else if (key == "add_prefix_space") {
      step.adds_prefix_space = read_flag(json);
    } else if (key == "use_regex") {
      step.uses_regex = read_flag(json);
    } else if (key == "pretokenizers") {
      json->array([&] { step.steps.push_back(read_step(json)); });
    } else {
      json->skip();
    }
  });
  return step;
}

void add_split(const Step& step, std::vector<Pattern>* patterns) {
  std::optional<Pattern> pattern = find_pattern(step.regex);
  if (!pattern) refuse("the pattern " + step.regex, "GLM-4's or GPT-2's");
  if (step.behavior != "Isolated" || step.is_inverted) {
    refuse("a Split that is " + step.behavior + (step.is_inverted ? " and inverted" : ""),
           "an Isolated one");
  }
  patterns->push_back(*pattern);
}

// Whether the last step spells bytes, as byte-level BPE needs.
bool add_step(const Step& step, std::vector<Pattern>* patterns) {
  bool is_spelled = false;
  if (step.type == "Sequence") {
    for (const Step& inner : step.steps) {
      if (is_spelled) refuse("a step after ByteLevel", "none");
      is_spelled = add_step(inner, patterns);
    }
    return is_spelled;
  }
  if (step.type == "Split") {
    add_split(step, patterns);
    return false;
  }
  if (step.type != "ByteLevel") refuse("the pre-tokenizer " + step.type, "Split or ByteLevel");
  if (step.adds_prefix_space) refuse("ByteLevel with add_prefix_space", "one without");
  if (step.uses_regex) patterns->push_back(Pattern::kGpt2);
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
  if (id < 0 || id > kMaxTokenId) json->fail("an added token has no id from 0 on");
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
        read_vocabulary();
      } else if (key == "merges") {
        merges_ = *json_;  // they name tokens, so they are read after the vocabulary
        has_merges_ = true;
        json_->skip();
      } else if (key == "ignore_merges") {
        parts_->ignores_merges = read_flag(json_);
      } else {
        check_absent(key);
      }
    });
    if (type != "BPE") refuse("the model '" + type + "'", "BPE");
    if (!has_merges_) json_->fail("the BPE has no merges");
    parts_->vocabulary.index_tokens();
    read_merges();
  }

 private:
  void read_vocabulary() {
    if (json_->kind() != JsonReader::Kind::kObject) refuse("a list as vocab", "BPE's object");
    json_->object([&](const std::string& name) { parts_->vocabulary.add(json_->integer(), name); });
  }

  // What would change tokens, and byte-level BPE does without.
  void check_absent(const std::string& key) {
    if (json_->take_null()) return;
    if (key == "byte_fallback") {
      if (json_->boolean()) refuse("byte_fallback (a SentencePiece)", "byte-level BPE");
    } else if (key == "dropout") {
      if (json_->number() != 0) refuse("dropout", "none");
    } else if (key == "unk_token") {
      refuse("an unk_token", "byte-level BPE");
    } else if (key == "continuing_subword_prefix" || key == "end_of_word_suffix") {
      if (!json_->string().empty()) refuse(key, "none");
    } else {
      json_->skip();
    }
  }

  void read_merges() {
    size_t count = 0;
    JsonReader counting = merges_;
    counting.array([&] {
      counting.skip();
      ++count;
    });
    parts_->vocabulary.reserve_merges(count);
    merges_.array([&] { read_merge(); });
  }

  // ["a", "b"], or "a b" as older versions of the library write it.
  void read_merge() {
    std::vector<std::string> names;
    if (merges_.kind() == JsonReader::Kind::kArray) {
      merges_.array([&] { names.push_back(merges_.string()); });
    } else {
      std::string both = merges_.string();
      size_t blank = both.find(' ');
      if (blank != std::string::npos) names = {both.substr(0, blank), both.substr(blank + 1)};
    }
    if (names.size() != 2) merges_.fail("a merge of two names is expected");
    parts_->vocabulary.add_merge(names[0], names[1]);
  }

  JsonReader* json_;
  TokenizerParts* parts_;
  JsonReader merges_{"", "tokenizer.json"};
  bool has_merges_ = false;
};

// Decoding is that of bytes; a post-processor only adds special tokens, which nobody asks for.
void read_part(const std::string& key, JsonReader* json, TokenizerParts* parts, bool* is_spelled) {
  if (key == "model") {
    ModelReader(json, parts).read();
  } else if (key == "added_tokens") {
    json->array([&] { parts->added.push_back(read_added(json)); });
  } else if (key == "pre_tokenizer" && !json->take_null()) {
    *is_spelled = add_step(read_step(json), &parts->patterns);
  } else if (key == "normalizer" && !json->take_null()) {
    refuse("the normalizer " + read_step(json).type, "none");
  } else if (key == "decoder" && !json->take_null()) {
    std::string type = read_step(json).type;
    if (type != "ByteLevel") refuse("the decoder " + type, "ByteLevel");
  } else if (key == "truncation" && !json->take_null()) {
    refuse("truncation", "none");
  } else if (key != "pre_tokenizer" && key != "normalizer" && key != "decoder" &&
             key != "truncation") {
    json->skip();
  }
}

}  // namespace

Tokenizer parse_tokenizer(std::string_view text) {
  JsonReader json(text, "tokenizer.json");
  TokenizerParts parts;
  bool is_spelled = false, has_model = false;
  json.object([&](const std::string& key) {
    has_model = has_model || key == "model";
    read_part(key, &json, &parts, &is_spelled);
  });
  json.finish();
  if (!has_model) json.fail("no model is in it");
  if (!is_spelled) refuse("no ByteLevel pre-tokenizer", "one at the end");
  return Tokenizer(std::move(parts));
}

}  // namespace glm
