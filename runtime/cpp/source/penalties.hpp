// Applies biases, penalties and DRY to the logits, in this order and before the temperature.
// Corresponds to penalties.py in glm_runtime.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "settings.hpp"

namespace glm {

class Penalties {
 public:
  // `is_breaker` says for each id whether it ends a repeated sequence in DRY. May be empty.
  Penalties(const Settings& settings, size_t vocab_size, const std::vector<int32_t>& prompt,
            std::vector<bool> is_breaker);

  bool is_active() const { return is_active_; }  // false if scores remain unchanged
  void apply(std::vector<float>* scores) const;
  void add(int32_t token);  // adds a token of the answer

 private:
  void penalize_repeats(std::vector<float>* scores) const;
  bool is_breaker(int32_t token) const { return !is_breaker_.empty() && is_breaker_[token]; }

  const Settings settings_;
  bool is_active_;
  std::vector<bool> is_seen_, is_breaker_;
  std::vector<int32_t> tokens_;                    // prompt and answer
  std::vector<int32_t> seen_;                      // the distinct ids in prompt and answer
  std::unordered_map<int32_t, int64_t> answered_;  // number of occurrences in the answer
};

}  // namespace glm
