// Logits to one token, as glm_runtime's sampler.py: penalties, temperature, top-k, top-p, min-p,
// draw, in this order and with its numbers in float32 and float64 where they are so there.
#pragma once

#include <cstdint>
#include <vector>

#include "penalties.hpp"
#include "random.hpp"
#include "settings.hpp"

namespace glm {

class Sampler {
 public:
  // `vocab_size`: ids from here on are padding and are never chosen.
  Sampler(const Settings& settings, size_t vocab_size, Penalties penalties);

  // `logits` has at least `vocab_size` values. Throws GLM_RUN_FAILED: NaN, or none is finite.
  int32_t choose(const float* logits);
  void accept(int32_t token);  // one that was not left to the sampler

 private:
  int32_t draw(const float* scores);

  glm_settings settings_;
  size_t vocab_size_;
  Penalties penalties_;
  Pcg64 random_;
  std::vector<float> scores_, weights_;  // kept, so that a token costs no memory
};

// Index of the largest value, the first of equals. Throws as `Sampler::choose`.
int32_t find_largest(const float* values, size_t count);

}  // namespace glm
