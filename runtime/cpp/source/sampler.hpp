// Logits to one token, as glm_runtime's sampler.py: penalties, temperature, top-k, top-p, min-p,
// draw, in this order and with its numbers in float32 and float64 where they are so there.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "glm.h"
#include "random.hpp"

namespace glm {

// Throws GLM_BAD_SETTING: a value is outside its range.
void check_settings(const glm_settings& settings);

class Sampler {
 public:
  // `vocab_size`: ids from here on are padding. `prompt`: what penalties count as used.
  Sampler(const glm_settings& settings, size_t vocab_size, const std::vector<int32_t>& prompt);

  // `logits` has at least `vocab_size` values. Throws GLM_RUN_FAILED: NaN, or none is finite.
  int32_t choose(const float* logits);

 private:
  void penalize();
  int32_t draw();

  glm_settings settings_;
  Pcg64 random_;
  std::vector<int32_t> seen_;                    // ids of prompt and answer, each once
  std::unordered_map<int32_t, int64_t> answered_;  // how often an id is in the answer
  std::vector<bool> is_seen_;
  std::vector<float> scores_;
};

// Index of the largest value, the first of equals. Throws as `Sampler::choose`.
int32_t find_largest(const float* values, size_t count);

}  // namespace glm
