// Generates one answer. Its text is printed at once or returned for JSON.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model.hpp"

using Clock = std::chrono::steady_clock;

struct Answer {
  std::vector<int32_t> prompt, tokens;
  std::string text, reasoning;
  glm_finish finish = GLM_GOES_ON;
  bool is_cancelled = false;
  Clock::time_point start, first, last;

  double measure_rate() const;  // tokens per second after the first token; 0 for a single token
};

enum class Show { kText, kNothing };

// Writes text to stdout and reasoning to stderr. Ctrl-C ends the answer. Throws Failure.
Answer answer_prompt(const Session& session, std::vector<int32_t> prompt,
                     const glm_settings& settings, Show show);

// Throws std::runtime_error if output could not be written to stdout.
void flush_output();

// Handles Ctrl-C: ends the current answer, or the program if there is none.
void interrupt();

// With `tools`, the calls at the end of the text become `tool_calls`.
std::string describe_as_json(const glm_model* model, const Answer& answer, double load_seconds,
                             const std::optional<std::string>& tools);
std::string list_as_json(const std::vector<int32_t>& ids);
