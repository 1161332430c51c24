#include "sampler.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "errors.hpp"

namespace glm {
namespace {

constexpr size_t kGroup = 64;            // values per maximum in `select_top`
constexpr size_t kFirstNucleus = 256;  // tokens tried first for top-p; most nuclei are smaller

void require(bool is_met, const char* name, double found, const char* expected) {
  if (is_met) return;
  throw Error(GLM_BAD_SETTING, std::string(name) + " is " + std::to_string(found) + " where " +
                                   expected + " is expected; choose a value in that range.");
}

float find_nth_largest(std::vector<float> values, size_t count) {
  std::nth_element(values.begin(), values.begin() + (count - 1), values.end(), std::greater<>());
  return values[count - 1];
}

std::vector<uint32_t> find_from(const std::vector<float>& values, float least) {
  std::vector<uint32_t> found;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] >= least) found.push_back(static_cast<uint32_t>(i));
  }
  return found;
}

// Indices of the `count` largest values and of all that equal the last of them, rising. The `count`
// largest maxima of groups are each reached by some value, so the least of them is a floor.
std::vector<uint32_t> select_top(const std::vector<float>& values, size_t count) {
  std::vector<float> maxima;
  for (size_t start = 0; start < values.size(); start += kGroup) {
    size_t end = std::min(start + kGroup, values.size());
    maxima.push_back(*std::max_element(values.begin() + start, values.begin() + end));
  }
  if (maxima.size() < 2 * count) return find_from(values, find_nth_largest(values, count));
  std::vector<uint32_t> candidates = find_from(values, find_nth_largest(maxima, count));
  std::vector<float> remaining;
  for (uint32_t i : candidates) remaining.push_back(values[i]);
  float last = find_nth_largest(remaining, count);
  auto is_less = [&](uint32_t i) { return values[i] < last; };
  candidates.erase(std::remove_if(candidates.begin(), candidates.end(), is_less), candidates.end());
  return candidates;
}

// The fewest largest weights that reach the share `top_p` of their sum, the largest first.
std::vector<uint32_t> select_nucleus(const std::vector<float>& weights, double top_p) {
  double target = top_p * std::accumulate(weights.begin(), weights.end(), 0.0);
  size_t count = std::min(kFirstNucleus, weights.size());
  while (true) {
    std::vector<uint32_t> top = select_top(weights, count);
    auto is_heavier = [&](uint32_t left, uint32_t right) { return weights[left] > weights[right]; };
    std::stable_sort(top.begin(), top.end(), is_heavier);
    double reached = 0;
    for (size_t i = 0; i < top.size(); ++i) {
      reached += weights[top[i]];
      if (reached < target) continue;
      top.resize(i + 1);
      return top;
    }
    if (top.size() == weights.size()) return top;
    count = std::min(count * 8, weights.size());
  }
}

// What may be drawn: ids and weights, the largest of which is about 1.
struct Candidates {
  std::vector<uint32_t> ids;
  std::vector<float> weights;

  void keep(const std::vector<uint32_t>& places) {
    Candidates kept;
    for (uint32_t place : places) {
      kept.ids.push_back(ids[place]);
      kept.weights.push_back(weights[place]);
    }
    *this = std::move(kept);
  }
};

}  // namespace

void check_settings(const glm_settings& s) {
  require(s.temperature >= 0 && std::isfinite(s.temperature), "temperature", s.temperature,
          "0 (greedy) or more");
  require(s.top_k >= 0, "top_k", s.top_k, "0 (keep all) or more");
  require(s.top_p > 0 && s.top_p <= 1, "top_p", s.top_p, "above 0 and at most 1");
  require(s.min_p >= 0 && s.min_p <= 1, "min_p", s.min_p, "from 0 to 1");
  require(s.repetition_penalty > 0 && std::isfinite(s.repetition_penalty), "repetition_penalty",
          s.repetition_penalty, "a number above 0");
  require(std::isfinite(s.presence_penalty), "presence_penalty", s.presence_penalty, "a number");
  require(std::isfinite(s.frequency_penalty), "frequency_penalty", s.frequency_penalty,
          "a number");
  require(s.max_new_tokens >= 0, "max_new_tokens", s.max_new_tokens, "0 (no limit) or more");
}

Sampler::Sampler(const glm_settings& settings, size_t vocab_size,
                 const std::vector<int32_t>& prompt)
    : settings_(settings),
      random_(settings.has_seed ? settings.seed : draw_seed()),
      is_seen_(vocab_size),
      scores_(vocab_size) {
  for (int32_t id : prompt) {
    if (!is_seen_[id]) seen_.push_back(id);
    is_seen_[id] = true;
  }
}

int32_t Sampler::choose(const float* logits) {
  scores_.assign(logits, logits + scores_.size());
  penalize();
  int32_t token = settings_.temperature == 0 ? find_largest(scores_.data(), scores_.size()) : draw();
  if (!is_seen_[token]) seen_.push_back(token);
  is_seen_[token] = true;
  ++answered_[token];
  return token;
}

void Sampler::penalize() {
  auto repetition = static_cast<float>(settings_.repetition_penalty);
  if (repetition != 1) {  // arXiv:1909.05858, section 4.1
    for (int32_t id : seen_) {
      scores_[id] = scores_[id] < 0 ? scores_[id] * repetition : scores_[id] / repetition;
    }
  }
  if (settings_.presence_penalty == 0 && settings_.frequency_penalty == 0) return;
  for (auto [id, count] : answered_) {
    double counted = settings_.frequency_penalty * static_cast<double>(count);
    scores_[id] -= static_cast<float>(settings_.presence_penalty + counted);
  }
}

int32_t Sampler::draw() {
  float best = scores_[find_largest(scores_.data(), scores_.size())];
  Candidates all;
  auto top_k = static_cast<size_t>(settings_.top_k);
  if (top_k > 0 && top_k < scores_.size()) {
    all.ids = select_top(scores_, top_k);
  } else {
    all.ids.resize(scores_.size());
    std::iota(all.ids.begin(), all.ids.end(), 0);
  }
  // Below 1e-30 a float might read 0; a tiny temperature gives exp(-inf) = 0, as it should.
  auto temperature = static_cast<float>(std::max(settings_.temperature, 1e-30));
  for (uint32_t id : all.ids) all.weights.push_back(std::exp((scores_[id] - best) / temperature));
  if (settings_.top_p < 1) all.keep(select_nucleus(all.weights, settings_.top_p));
  if (settings_.min_p > 0) {  // the best weighs exp(0) = 1
    all.keep(find_from(all.weights, static_cast<float>(settings_.min_p)));
  }
  std::vector<double> reached(all.weights.begin(), all.weights.end());
  std::partial_sum(reached.begin(), reached.end(), reached.begin());
  double wanted = random_.uniform() * reached.back();
  auto found = std::upper_bound(reached.begin(), reached.end(), wanted);
  if (found == reached.end()) --found;
  return static_cast<int32_t>(all.ids[found - reached.begin()]);
}

int32_t find_largest(const float* values, size_t count) {
  size_t best = 0;
  for (size_t i = 0; i < count; ++i) {
    if (std::isnan(values[i])) best = i;
    if (std::isnan(values[best])) break;
    if (values[i] > values[best]) best = i;
  }
  if (count > 0 && std::isfinite(values[best])) return static_cast<int32_t>(best);
  throw Error(GLM_RUN_FAILED,
              "the model gave no finite number as its best logit where one is expected; check the "
              "folder with `glm-run doctor`, or export it with `--dtype fp32`.");
}

}  // namespace glm
