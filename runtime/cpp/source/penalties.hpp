// Scores of tokens changed by what was said before: biases, penalties and DRY, in this order and
// before temperature; as glm_runtime's penalties.py.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "settings.hpp"

namespace glm {

class Penalties {
 public:
  // `is_breaker`, by id, ends a repeat for DRY; empty where none does.
  Penalties(const Settings& settings, size_t vocab_size, const std::vector<int32_t>& prompt,
            std::vector<bool> is_breaker);

  bool is_active() const { return is_active_; }  // whether scores are changed at all
  void apply(std::vector<float>* scores) const;
  void add(int32_t token);  // one of the answer

 private:
  void penalize_repeats(std::vector<float>* scores) const;
  bool is_breaker(int32_t token) const { return !is_breaker_.empty() && is_breaker_[token]; }

  const Settings settings_;
  bool is_active_;
  std::vector<bool> is_seen_, is_breaker_;
  std::vector<int32_t> tokens_;                    // prompt and answer
  std::vector<int32_t> seen_;                      // ids of both, each once
  std::unordered_map<int32_t, int64_t> answered_;  // how often an id is in the answer
};

}  // namespace glm
