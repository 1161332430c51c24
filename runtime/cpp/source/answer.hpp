// Turns logits into the tokens and text of one answer, and decides when it ends. It does not know
// the model. Corresponds to AnswerWriter and AnswerReader in glm_runtime.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "manifest.hpp"
#include "sampler.hpp"
#include "settings.hpp"
#include "stop_strings.hpp"
#include "text_stream.hpp"
#include "thinking.hpp"
#include "tokenizer.hpp"

namespace glm {

class Answer {
 public:
  // `model` and `tokenizer` must outlive this object. `turn` is the text of the token between two
  // tool calls, if there are tools. Throws GLM_BAD_SETTING.
  Answer(const Tokenizer& tokenizer, const ModelShape& model, const glm_settings& settings,
         const std::vector<int32_t>& prompt, std::string turn = "\n");

  struct Piece {
    int32_t token;
    AnswerPart part;
    glm_finish finish;
  };

  // Chooses the next token. Must not be called after the last one. Throws like `Sampler::choose`.
  Piece write(const float* logits);

  int64_t remaining() const { return remaining_; }  // maximum number of further tokens

 private:
  int32_t choose(const float* logits);
  void close_thinking();
  AnswerPart read(int32_t token);
  AnswerPart finish();
  AnswerPart split(const std::string& text);
  bool is_thinking() const { return splitter_ && splitter_->is_thinking(); }

  const Tokenizer& tokenizer_;
  const ModelShape& model_;
  Settings settings_;
  int64_t remaining_;
  Sampler sampler_;
  TextStream stream_;
  std::optional<ThinkingSplitter> splitter_;
  StopStrings stop_strings_;
  std::deque<int32_t> forced_;
  int64_t thinking_tokens_ = 0;
  int32_t turn_ = kNoToken;  // the token between two tool calls, if there are tools
  std::string turn_text_;
};

}  // namespace glm
