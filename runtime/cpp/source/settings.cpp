#include "settings.hpp"

#include <cmath>

#include "errors.hpp"
#include "utf8.hpp"

namespace glm {
namespace {

// As in glm_runtime's sampling.py.
constexpr double kDryBase = 1.75;
constexpr int32_t kDryAllowedLength = 2;
constexpr size_t kMaxStops = 1000;
constexpr double kLargest = 1e6;  // float scores stay finite with all values up to here
constexpr double kSmallestPenalty = 0.01;
const char* const kDryBreakers[] = {"\n", ":", "\"", "*"};

[[noreturn]] void refuse(const std::string& found, const std::string& expected) {
  throw Error(GLM_BAD_SETTING,
              found + " where " + expected + " is expected; choose a value in that range.");
}

void require(bool is_met, const char* name, double found, const char* expected) {
  if (!is_met) refuse(std::string(name) + " is " + std::to_string(found), expected);
}

void check_pointer(const void* values, size_t count, const char* name) {
  if (count > 0 && values == nullptr) refuse(std::string(name) + " is NULL", "an array");
}

std::vector<std::string> read_texts(const char* const* texts, size_t count, const char* name) {
  check_pointer(texts, count, name);
  std::vector<std::string> copies;
  for (size_t i = 0; i < count; ++i) {
    if (texts[i] == nullptr) refuse("a string in " + std::string(name) + " is NULL", "a string");
    copies.emplace_back(texts[i]);
    if (copies.back().empty()) {
      refuse("a string in " + std::string(name) + " is empty", "at least one character");
    }
    if (find_invalid_utf8(copies.back()) != std::string::npos) {
      refuse("a string in " + std::string(name) + " is not UTF-8", "UTF-8");
    }
  }
  return copies;
}

std::vector<glm_bias> read_biases(const glm_settings& s, const ModelShape& model) {
  check_pointer(s.biases, s.bias_count, "biases");
  std::vector<glm_bias> biases;
  for (size_t i = 0; i < s.bias_count; ++i) {
    auto [token, bias] = s.biases[i];
    if (token < 0 || token >= model.tokenizer_vocab_size) {
      refuse("biases contains the id " + std::to_string(token),
             "an id from 0 to below " + std::to_string(model.tokenizer_vocab_size));
    }
    if (!(std::abs(bias) <= kLargest) && bias != -HUGE_VALF) {
      refuse("the bias of token " + std::to_string(token) + " is " + std::to_string(bias),
             "a number from -1000000 to 1000000, or -infinity,");
    }
    biases.push_back(s.biases[i]);
  }
  return biases;
}

void check_dry(const glm_settings& s) {
  require(s.dry_multiplier >= 0 && s.dry_multiplier <= kLargest, "dry_multiplier",
          s.dry_multiplier, "a number from 0 (off) to 1000000");
  if (s.dry_multiplier == 0) return;
  require(s.dry_base >= 1 && s.dry_base <= kLargest, "dry_base", s.dry_base,
          "a number from 1 to 1000000");
  require(s.dry_allowed_length >= 1, "dry_allowed_length", s.dry_allowed_length, "1 or more");
}

}  // namespace

glm_settings make_neutral_settings() {
  glm_settings s{};
  s.size = sizeof s;
  s.top_p = 1;
  s.repetition_penalty = 1;
  s.dry_base = kDryBase;
  s.dry_allowed_length = kDryAllowedLength;
  s.dry_breakers = kDryBreakers;
  s.dry_breaker_count = std::size(kDryBreakers);
  return s;
}

void check_settings(const glm_settings& s) {
  require(s.temperature >= 0 && s.temperature <= kLargest, "temperature", s.temperature,
          "a number from 0 (greedy) to 1000000");
  require(s.top_k >= 0, "top_k", s.top_k, "0 (keep all) or more");
  require(s.top_p > 0 && s.top_p <= 1, "top_p", s.top_p, "above 0 and at most 1");
  require(s.min_p >= 0 && s.min_p <= 1, "min_p", s.min_p, "from 0 to 1");
  require(s.repetition_penalty >= kSmallestPenalty && s.repetition_penalty <= kLargest,
          "repetition_penalty", s.repetition_penalty, "a number from 0.01 to 1000000");
  const char* finite = "a number from -1000000 to 1000000";
  require(std::abs(s.presence_penalty) <= kLargest, "presence_penalty", s.presence_penalty, finite);
  require(std::abs(s.frequency_penalty) <= kLargest, "frequency_penalty", s.frequency_penalty,
          finite);
  require(s.max_new_tokens >= 0, "max_new_tokens", s.max_new_tokens, "0 (no limit) or more");
  require(s.max_length >= 0, "max_length", s.max_length, "0 (no limit) or more");
  require(s.max_thinking_tokens >= 0, "max_thinking_tokens", s.max_thinking_tokens, "0 or more");
  if (s.limits_thinking && !s.parts_thinking) {
    refuse("limits_thinking is set without parts_thinking", "both, or neither");
  }
  check_dry(s);
}

Settings read_settings(const glm_settings& given, const ModelShape& model) {
  check_settings(given);
  Settings settings;
  settings.plain = given;
  settings.biases = read_biases(given, model);
  if (given.stop_count > kMaxStops) {  // all of them are searched after every token
    refuse("stop_count is " + std::to_string(given.stop_count), "1000 or less");
  }
  settings.stop = read_texts(given.stop, given.stop_count, "stop");
  if (given.dry_multiplier > 0) {
    settings.dry_breakers = read_texts(given.dry_breakers, given.dry_breaker_count, "dry_breakers");
  }
  if (!given.ignores_eos) return settings;
  for (int64_t token : model.eos_token_ids) {
    if (token >= model.tokenizer_vocab_size) continue;
    settings.biases.push_back({static_cast<int32_t>(token), -HUGE_VALF});
  }
  return settings;
}

}  // namespace glm
