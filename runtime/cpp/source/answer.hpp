// Logits to pieces, for one answer: knows when it ends, not where logits come from. As
// glm_runtime's AnswerWriter and AnswerReader.
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
  // Throws GLM_BAD_SETTING. `model` and `tokenizer` must outlive this.
  Answer(const Tokenizer& tokenizer, const ModelShape& model, const glm_settings& settings,
         const std::vector<int32_t>& prompt);

  struct Piece {
    int32_t token;
    AnswerPart part;
    glm_finish finish;
  };

  // Chooses the next token; nothing more after one that finishes. Throws as `Sampler::choose`.
  Piece write(const float* logits);

  int64_t remaining() const { return remaining_; }  // tokens still to come, at most

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
};

}  // namespace glm
