#include "answer.hpp"

#include <algorithm>

#include "errors.hpp"
#include "utf8.hpp"

namespace glm {
namespace {

constexpr char kTurn[] = "<|assistant|>";
constexpr char kClosing[] = "\n</think>\n\n";
constexpr size_t kTail = 16;  // the opening tag and white space after it have fewer tokens

// Maximum length of the answer. Throws GLM_BAD_PROMPT if max_length leaves no token. Its last token is not read by the model, so it needs no cache.
int64_t count_room(const ModelShape& model, const glm_settings& settings, size_t prompt_size) {
  int64_t room = model.context_length - static_cast<int64_t>(prompt_size) + 1;
  if (settings.max_new_tokens > 0) return std::min<int64_t>(room, settings.max_new_tokens);
  if (settings.max_length == 0) return room;
  int64_t rest = settings.max_length - static_cast<int64_t>(prompt_size);
  if (rest > 0) return std::min(room, rest);
  throw Error(GLM_BAD_PROMPT,
              "the prompt has " + std::to_string(prompt_size) + " tokens where max_length=" +
                  std::to_string(settings.max_length) +
                  " is the limit for prompt and answer together; set max_new_tokens, or shorten "
                  "the prompt.");
}

Sampler make_sampler(const Tokenizer& tokenizer, const ModelShape& model, const Settings& settings,
                     const std::vector<int32_t>& prompt) {
  auto size = static_cast<size_t>(model.tokenizer_vocab_size);
  std::vector<bool> breakers = tokenizer.find_tokens_with(settings.dry_breakers, size);
  return {settings, size, Penalties(settings, size, prompt, std::move(breakers))};
}

bool ends_inside_thinking(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt) {
  std::string tail;
  for (size_t i = prompt.size() - std::min(prompt.size(), kTail); i < prompt.size(); ++i) {
    tail += tokenizer.spell(prompt[i]);
  }
  return is_open_thinking(repair_utf8(tail));
}

}  // namespace

Answer::Answer(const Tokenizer& tokenizer, const ModelShape& model, const glm_settings& settings,
               const std::vector<int32_t>& prompt, std::string turn)
    : tokenizer_(tokenizer),
      model_(model),
      settings_(read_settings(settings, model)),
      remaining_(count_room(model, settings, prompt.size())),
      sampler_(make_sampler(tokenizer, model, settings_, prompt)),
      stream_(tokenizer),
      stop_strings_(settings_.stop),
      turn_text_(std::move(turn)) {
  if (settings.has_tools) turn_ = tokenizer.find_id(kTurn);
  if (settings.parts_thinking) splitter_.emplace(ends_inside_thinking(tokenizer, prompt));
}

Answer::Piece Answer::write(const float* logits) {
  close_thinking();
  int32_t token = choose(logits);
  Piece piece{token, read(token), GLM_GOES_ON};
  --remaining_;
  if (model_.is_eos(token)) {
    piece.finish = GLM_STOPPED;
  } else if (stop_strings_.is_found()) {
    piece.finish = GLM_STOP_STRING;
  } else if (remaining_ == 0) {
    piece.finish = GLM_LENGTH;
  }
  if (piece.finish == GLM_GOES_ON || stop_strings_.is_found()) return piece;
  AnswerPart rest = finish();
  piece.part.text += rest.text;
  piece.part.reasoning += rest.reasoning;
  return piece;
}

int32_t Answer::choose(const float* logits) {
  if (forced_.empty()) return sampler_.choose(logits);
  int32_t token = forced_.front();
  forced_.pop_front();
  sampler_.accept(token);
  return token;
}

// Forces the closing tag if reasoning is too long and the last token completed its character.
void Answer::close_thinking() {
  const glm_settings& s = settings_.plain;
  if (!forced_.empty() || !s.limits_thinking || !is_thinking()) return;
  if (thinking_tokens_ < s.max_thinking_tokens || !stream_.is_complete()) return;
  for (int32_t id : tokenizer_.encode(kClosing)) forced_.push_back(id);
}

AnswerPart Answer::read(int32_t token) {
  if (is_thinking()) ++thinking_tokens_;
  bool is_turn = turn_ != kNoToken && token == turn_;
  AnswerPart part = split(is_turn ? turn_text_ : stream_.add(token));
  part.text = stop_strings_.add(part.text);
  return part;
}

// Returns the text that was held back.
AnswerPart Answer::finish() {
  AnswerPart part = split(stream_.flush());
  if (splitter_) {
    AnswerPart rest = splitter_->flush();
    part.text += rest.text;
    part.reasoning += rest.reasoning;
  }
  part.text = stop_strings_.add(part.text);
  part.text += stop_strings_.flush();
  return part;
}

AnswerPart Answer::split(const std::string& text) {
  if (splitter_) return splitter_->add(text);
  return {text, ""};
}

}  // namespace glm
