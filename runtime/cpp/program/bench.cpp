#include "bench.hpp"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "answering.hpp"
#include "console.hpp"
#include "model.hpp"

namespace {

const Clock::time_point program_start = Clock::now();  // when the program starts, before main

struct Round {
  double prefill_seconds, decode_seconds;
};

struct Plan {
  int64_t prompt_tokens, new_tokens, rounds;
};

double seconds_between(Clock::time_point start, Clock::time_point end) {
  return std::chrono::duration<double>(end - start).count();
}

// Arbitrary ids. The first one differs in each round, so that the prefix cache is not used.
std::vector<int32_t> make_prompt(int64_t count, int64_t token_count, int64_t round) {
  std::vector<int32_t> prompt;
  for (int64_t i = 0; i < count; ++i) {
    int64_t number = i == 0 ? round : i * 7919 + 13;
    prompt.push_back(static_cast<int32_t>(number % token_count));
  }
  return prompt;
}

// The prefill gives the first token, and each decoding step one more.
Round run_round(const Session& session, const Plan& plan, int64_t token_count, int64_t round) {
  glm_settings settings{};
  settings.size = sizeof settings;
  settings.top_p = settings.repetition_penalty = 1;
  settings.ignores_eos = 1;
  settings.max_new_tokens = static_cast<int32_t>(plan.new_tokens + 1);
  Answer answer = answer_prompt(session, make_prompt(plan.prompt_tokens, token_count, round),
                                settings, Show::kNothing);
  if (answer.is_cancelled) throw Failure(GLM_CANCELLED);
  return {seconds_between(answer.start, answer.first), seconds_between(answer.first, answer.last)};
}

std::vector<double> list_rates(const std::vector<Round>& rounds, double Round::* seconds,
                               int64_t tokens) {
  std::vector<double> rates;
  for (const Round& round : rounds) rates.push_back(static_cast<double>(tokens) / round.*seconds);
  std::sort(rates.begin(), rates.end());
  return rates;
}

double find_median(const std::vector<double>& sorted) {
  size_t middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

void check_length(const Plan& plan, int64_t context_length) {
  if (plan.prompt_tokens + plan.new_tokens <= context_length) return;
  throw std::runtime_error(std::to_string(plan.prompt_tokens + plan.new_tokens) +
                           " tokens do not fit into the model's context of " +
                           std::to_string(context_length) +
                           "; choose a smaller --prompt-tokens or --new-tokens.");
}

}  // namespace

void run_benchmark(const Arguments& arguments) {
  Plan plan{arguments.prompt_tokens.value_or(128), arguments.new_tokens.value_or(64),
            arguments.rounds.value_or(5)};
  auto start = Clock::now();
  Model model = load(arguments);
  double load_seconds = seconds_between(start, Clock::now());
  glm_model_info info = describe(model);
  check_length(plan, info.context_length);
  Session session = new_session(model);
  double program_seconds = seconds_between(program_start, Clock::now());
  Round cold = run_round(session, plan, info.token_count, 0);
  std::vector<Round> rounds;
  for (int64_t round = 1; round <= plan.rounds; ++round) {
    rounds.push_back(run_round(session, plan, info.token_count, round));
  }
  std::vector<double> decode = list_rates(rounds, &Round::decode_seconds, plan.new_tokens);
  double prefill = find_median(list_rates(rounds, &Round::prefill_seconds, plan.prompt_tokens));
  double first_ms = static_cast<double>(plan.prompt_tokens) / prefill * 1000;
  double start_seconds = program_seconds + cold.prefill_seconds, peak_bytes = read_peak_bytes();
  std::printf(arguments.is_json
                  ? "{\"decode_tokens_per_second\": %.3f, \"decode_tokens_per_second_min\": %.3f, "
                    "\"decode_tokens_per_second_max\": %.3f, \"prefill_tokens_per_second\": %.3f, "
                    "\"time_to_first_token_ms\": %.3f, \"peak_rss_bytes\": %.0f, "
                    "\"load_seconds\": %.4f, \"start_to_first_token_seconds\": %.4f, "
                  : "decode       %.1f tokens/s (%.1f to %.1f)\nprefill      %.1f tokens/s\n"
                    "first token  %.1f ms\npeak memory  %.0f bytes\nload         %.3f s\n"
                    "start to the first token %.3f s, ",
              find_median(decode), decode.front(), decode.back(), prefill, first_ms, peak_bytes,
              load_seconds, start_seconds);
  std::printf(arguments.is_json ? "\"prompt_tokens\": %lld, \"new_tokens\": %lld, \"rounds\": "
                                  "%lld, \"threads\": %d, \"device\": \"cpu\"}\n"
                                : "of a prompt of %lld; %lld tokens, %lld rounds, %d threads\n",
              static_cast<long long>(plan.prompt_tokens), static_cast<long long>(plan.new_tokens),
              static_cast<long long>(plan.rounds), info.threads);
}
