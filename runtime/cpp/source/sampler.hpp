// Chooses a token from logits: penalties, temperature, top-k, top-p, min-p and sampling, in this
// order. Corresponds to sampler.py in glm_runtime, with float32 and float64 in the same places.
#pragma once

#include <cstdint>
#include <vector>

#include "penalties.hpp"
#include "random.hpp"
#include "settings.hpp"

namespace glm {

class Sampler {
 public:
  // Ids of `vocab_size` and more are padding and are never chosen.
  Sampler(const Settings& settings, size_t vocab_size, Penalties penalties);

  // `logits` has at least `vocab_size` values. Throws GLM_RUN_FAILED if one is NaN or none is
  // finite.
  int32_t choose(const float* logits);
  void accept(int32_t token);  // adds a token that was not sampled

 private:
  int32_t draw(const float* scores);

  glm_settings settings_;
  size_t vocab_size_;
  Penalties penalties_;
  Pcg64 random_;
  std::vector<float> scores_, weights_;  // members, so that no token allocates memory
};

// Index of the first largest value. Throws like `Sampler::choose`.
int32_t find_largest(const float* values, size_t count);

}  // namespace glm
