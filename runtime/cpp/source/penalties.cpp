#include "penalties.hpp"

#include <algorithm>
#include <cmath>
#include <map>

namespace glm {
namespace {

// Maximum exponent of the DRY penalty; as in penalties.py.
constexpr size_t kLongestExcess = 50;
constexpr double kLargestRepeatPenalty = 1e30;  // a float holds it

}  // namespace

Penalties::Penalties(const Settings& settings, size_t vocab_size,
                     const std::vector<int32_t>& prompt, std::vector<bool> is_breaker)
    : settings_(settings), is_seen_(vocab_size), is_breaker_(std::move(is_breaker)) {
  const glm_settings& s = settings.plain;
  is_active_ = s.repetition_penalty != 1 || s.presence_penalty != 0 || s.frequency_penalty != 0 ||
               s.dry_multiplier > 0 || !settings.biases.empty();
  if (!is_active_) return;
  tokens_ = prompt;
  for (int32_t id : prompt) {
    if (!is_seen_[id]) seen_.push_back(id);
    is_seen_[id] = true;
  }
}

void Penalties::apply(std::vector<float>* scores) const {
  const glm_settings& s = settings_.plain;
  std::vector<float>& values = *scores;
  for (auto [token, bias] : settings_.biases) values[token] += bias;
  auto repetition = static_cast<float>(s.repetition_penalty);
  if (repetition != 1) {  // arXiv:1909.05858, section 4.1
    for (int32_t id : seen_) {
      values[id] = values[id] < 0 ? values[id] * repetition : values[id] / repetition;
    }
  }
  if (s.presence_penalty != 0 || s.frequency_penalty != 0) {
    for (auto [id, count] : answered_) {
      double counted = s.frequency_penalty * static_cast<double>(count);
      values[id] -= static_cast<float>(s.presence_penalty + counted);
    }
  }
  if (s.dry_multiplier > 0) penalize_repeats(scores);
}

void Penalties::add(int32_t token) {
  if (!is_active_) return;
  if (!is_seen_[token]) seen_.push_back(token);
  is_seen_[token] = true;
  ++answered_[token];
  tokens_.push_back(token);
}

// Finds earlier occurrences of the last tokens. For each token that followed one, `longest` has the
// length of the longest repeated sequence. Source: p-e-w, text-generation-webui pull request 5677.
void Penalties::penalize_repeats(std::vector<float>* scores) const {
  if (tokens_.empty() || is_breaker(tokens_.back())) return;
  const glm_settings& s = settings_.plain;
  size_t last = tokens_.size() - 1;
  auto allowed = static_cast<size_t>(s.dry_allowed_length);
  std::map<int32_t, size_t> longest;
  for (size_t end = 0; end < last; ++end) {
    if (tokens_[end] != tokens_[last] || is_breaker(tokens_[end + 1])) continue;
    size_t length = 1;
    while (length < allowed + kLongestExcess && length <= end &&
           tokens_[end - length] == tokens_[last - length] && !is_breaker(tokens_[end - length])) {
      ++length;
    }
    if (length < allowed) continue;
    size_t& known = longest[tokens_[end + 1]];
    known = std::max(known, length);
  }
  for (auto [token, length] : longest) {
    double excess = static_cast<double>(length - allowed);
    double penalty = s.dry_multiplier * std::pow(s.dry_base, excess);
    (*scores)[token] -= static_cast<float>(std::min(penalty, kLargestRepeatPenalty));
  }
}

}  // namespace glm
