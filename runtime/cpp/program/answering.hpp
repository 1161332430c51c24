// One answer: streamed to the terminal, or kept for JSON.
#pragma once

#include <chrono>
#include <cstdint>
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

  double measure_rate() const;  // tokens a second behind the first; 0 where there is none
};

enum class Show { kText, kNothing };

// Text goes to stdout and thinking to stderr. Ctrl-C ends the answer. Throws Failure.
Answer answer_prompt(const Session& session, std::vector<int32_t> prompt,
                     const glm_settings& settings, Show show);

// Throws std::runtime_error: something that went to stdout was not written.
void flush_output();

// What Ctrl-C does: ends the answer that is being written; without one, the program.
void interrupt();

std::string describe_as_json(const Answer& answer, double load_seconds);
std::string list_as_json(const std::vector<int32_t>& ids);
