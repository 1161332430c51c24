// The command-line arguments of glm-run.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "glm.h"

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Arguments {
  std::string command, folder;
  std::optional<std::string> prompt, prompt_file, system, prefill, prepared, output;
  std::optional<std::string> tools_file, tools;  // `tools` is the content of the file
  std::optional<double> temperature, top_p, min_p;
  std::optional<double> repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<double> dry_multiplier, dry_base;
  std::optional<int64_t> top_k, max_new_tokens, threads, max_thinking_tokens, dry_allowed_length;
  std::optional<std::string> rope_scaling;
  std::optional<double> factor;
  std::optional<int64_t> original_context;
  std::optional<int64_t> prompt_tokens, new_tokens, rounds;  // for bench
  std::optional<uint64_t> seed;
  std::vector<const char*> stop;
  std::vector<glm_bias> biases;
  bool is_raw = false, is_greedy = false, is_json = false, is_verified = false, is_help = false;
  bool is_version = false;
  bool ignores_eos = false;
  std::optional<bool> is_sanitized, huge_pages;
  int thinking = -1;
};

// Parses the arguments. The result points into `words`. Throws UsageError.
Arguments parse_arguments(const std::vector<std::string>& words);

// Replaces the folder's settings by those of the arguments, like SamplingSettings.override in
// glm_runtime. The result points into `arguments`.
glm_settings merge_settings(const Arguments& arguments, glm_settings settings);

extern const char kHelp[];
extern const char kChatHelp[];  // the commands of a chat
