#include "sampler.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "errors.hpp"

namespace glm {
namespace {

constexpr size_t kGroup = 64;          // number of values that are compared at a time
constexpr size_t kFirstNucleus = 256;  // number of tokens that top-p tries first; most need fewer

float find_nth_largest(std::vector<float> values, size_t count) {
  std::nth_element(values.begin(), values.begin() + (count - 1), values.end(), std::greater<>());
  return values[count - 1];
}

// Loops over whole blocks without a branch, like this one, become vector instructions.
template <class IsIt>
bool has_any(const float* values, size_t count, IsIt is_it) {
  unsigned found = 0;
  for (size_t i = 0; i < count; ++i) found |= is_it(values[i]) ? 1u : 0u;
  return found != 0;
}

std::vector<uint32_t> find_from(const float* values, size_t size, float least) {
  auto is_enough = [least](float value) { return value >= least; };
  std::vector<uint32_t> found;
  for (size_t start = 0; start < size; start += kGroup) {
    size_t count = std::min(kGroup, size - start);
    if (!has_any(values + start, count, is_enough)) continue;
    for (size_t i = start; i < start + count; ++i) {
      if (is_enough(values[i])) found.push_back(static_cast<uint32_t>(i));
    }
  }
  return found;
}

// A lower bound for the `count` largest values: the `count`-th largest of the maxima of groups.
// Group i consists of every n-th value from i on.
float find_floor(const float* values, size_t num_groups, size_t count) {
  std::vector<float> maxima(values, values + num_groups);
  for (size_t row = 1; row < kGroup; ++row) {
    const float* others = values + row * num_groups;
    for (size_t i = 0; i < num_groups; ++i) {
      maxima[i] = others[i] > maxima[i] ? others[i] : maxima[i];
    }
  }
  return find_nth_largest(std::move(maxima), count);
}

// Ascending indices of the `count` largest values, and of all values equal to the last of them.
std::vector<uint32_t> select_top(const float* values, size_t size, size_t count) {
  size_t num_groups = size / kGroup;
  if (num_groups < 2 * count) {
    return find_from(values, size, find_nth_largest({values, values + size}, count));
  }
  std::vector<uint32_t> candidates = find_from(values, size, find_floor(values, num_groups, count));
  std::vector<float> remaining;
  for (uint32_t i : candidates) remaining.push_back(values[i]);
  float last = find_nth_largest(remaining, count);
  auto is_less = [&](uint32_t i) { return values[i] < last; };
  candidates.erase(std::remove_if(candidates.begin(), candidates.end(), is_less), candidates.end());
  return candidates;
}

// The largest weights, in descending order, whose sum reaches the share `top_p` of the total.
std::vector<uint32_t> select_nucleus(const std::vector<float>& weights, double top_p) {
  double target = top_p * std::accumulate(weights.begin(), weights.end(), 0.0);
  size_t count = std::min(kFirstNucleus, weights.size());
  while (true) {
    std::vector<uint32_t> top = select_top(weights.data(), weights.size(), count);
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

// Keeps the ids and weights at the given places. Empty `ids` stand for all ids.
void keep(const std::vector<uint32_t>& places, std::vector<uint32_t>* ids,
          std::vector<float>* weights) {
  std::vector<uint32_t> kept_ids;
  std::vector<float> kept_weights;
  for (uint32_t place : places) {
    kept_ids.push_back(ids->empty() ? place : (*ids)[place]);
    kept_weights.push_back((*weights)[place]);
  }
  ids->swap(kept_ids);
  weights->swap(kept_weights);
}

}  // namespace

Sampler::Sampler(const Settings& settings, size_t vocab_size, Penalties penalties)
    : settings_(settings.plain),
      vocab_size_(vocab_size),
      penalties_(std::move(penalties)),
      random_(settings_.has_seed ? settings_.seed : draw_seed()) {}

int32_t Sampler::choose(const float* logits) {
  if (penalties_.is_active()) {
    scores_.assign(logits, logits + vocab_size_);
    penalties_.apply(&scores_);
    logits = scores_.data();
  }
  int32_t token = settings_.temperature == 0 ? find_largest(logits, vocab_size_) : draw(logits);
  penalties_.add(token);
  return token;
}

void Sampler::accept(int32_t token) { penalties_.add(token); }

int32_t Sampler::draw(const float* scores) {
  float best = scores[find_largest(scores, vocab_size_)];
  std::vector<uint32_t> ids;  // empty: all ids
  auto top_k = static_cast<size_t>(settings_.top_k);
  if (top_k > 0 && top_k < vocab_size_) ids = select_top(scores, vocab_size_, top_k);
  // Avoids a division by zero in float. A tiny temperature gives exp(-inf) = 0, as it should.
  auto temperature = static_cast<float>(std::max(settings_.temperature, 1e-30));
  weights_.resize(ids.empty() ? vocab_size_ : ids.size());
  for (size_t i = 0; i < weights_.size(); ++i) {
    weights_[i] = std::exp((scores[ids.empty() ? i : ids[i]] - best) / temperature);
  }
  if (settings_.top_p < 1) keep(select_nucleus(weights_, settings_.top_p), &ids, &weights_);
  if (settings_.min_p > 0) {  // the largest weight is exp(0) = 1
    auto least = static_cast<float>(settings_.min_p);
    keep(find_from(weights_.data(), weights_.size(), least), &ids, &weights_);
  }
  double total = std::accumulate(weights_.begin(), weights_.end(), 0.0);
  double wanted = random_.uniform() * total, reached = 0;
  size_t place = 0;
  while (place + 1 < weights_.size() && (reached += weights_[place]) <= wanted) ++place;
  return static_cast<int32_t>(ids.empty() ? place : ids[place]);
}

int32_t find_largest(const float* values, size_t count) {
  float lanes[kGroup];
  std::fill_n(lanes, kGroup, -HUGE_VALF);
  size_t start = 0;
  for (; start + kGroup <= count; start += kGroup) {
    for (size_t i = 0; i < kGroup; ++i) {
      lanes[i] = values[start + i] > lanes[i] ? values[start + i] : lanes[i];
    }
  }
  for (size_t i = start; i < count; ++i) lanes[0] = std::max(lanes[0], values[i]);
  float best = *std::max_element(lanes, lanes + kGroup);
  bool has_nan = has_any(values, count, [](float value) { return value != value; });
  if (!has_nan && std::isfinite(best)) {
    return static_cast<int32_t>(std::find(values, values + count, best) - values);
  }
  throw Error(GLM_RUN_FAILED,
              "the logits contain NaN or have no finite maximum; check the folder with Python's "
              "`glm-run doctor`, and export a folder in float16 again with `--dtype fp32`.");
}

}  // namespace glm
