// One model through the C header of runtime/cpp; does what `serve` of processes.py does.
//
//     worker FOLDER THREADS [huge]

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "glm.h"

using Clock = std::chrono::steady_clock;

struct Answer {
  Clock::time_point started, first;
  std::vector<int32_t> tokens;
};

static double count_seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

static void require(glm_status status) {
  if (status == GLM_OK) return;
  std::cerr << glm_error_text() << "\n";
  std::exit(1);
}

// The numbers of {"prompt": [1, 2], "num_tokens": 3}, in this order.
static std::vector<int32_t> read_numbers(const std::string& line) {
  std::vector<int32_t> numbers;
  for (const char* place = line.c_str(); *place != '\0';) {
    if (*place < '0' || *place > '9') {
      ++place;
      continue;
    }
    char* end = nullptr;
    numbers.push_back(static_cast<int32_t>(std::strtol(place, &end, 10)));
    place = end;
  }
  return numbers;
}

static int take(void* user, const glm_piece* piece) {
  auto& answer = *static_cast<Answer*>(user);
  if (answer.tokens.empty()) answer.first = Clock::now();
  answer.tokens.push_back(piece->token);
  return 0;
}

static void answer_line(const glm_model* model, const std::string& line) {
  std::vector<int32_t> prompt = read_numbers(line);
  glm_settings settings = {};
  settings.size = sizeof settings;
  require(glm_default_settings(model, &settings));
  settings.temperature = 0;
  settings.repetition_penalty = 1;
  settings.max_new_tokens = prompt.back();
  prompt.pop_back();
  glm_session* session = nullptr;
  require(glm_new_session(model, &session));
  Answer answer;
  answer.started = Clock::now();
  require(glm_generate(session, prompt.data(), prompt.size(), &settings, take, &answer));
  const auto ended = Clock::now();
  glm_free_session(session);
  std::cout << "{\"first_token_seconds\": " << count_seconds(answer.started, answer.first)
            << ", \"decode_seconds\": " << count_seconds(answer.first, ended) << ", \"tokens\": [";
  for (size_t place = 0; place < answer.tokens.size(); ++place) {
    std::cout << (place ? ", " : "") << answer.tokens[place];
  }
  std::cout << "]}" << std::endl;
}

int main(int count, char** arguments) {
  if (count != 3 && count != 4) {
    std::cerr << "usage: worker FOLDER THREADS [huge]\n";
    return 2;
  }
  const auto started = Clock::now();
  glm_load_options options = {};
  options.size = sizeof options;
  options.huge_pages = count == 4;
  options.threads = std::atoi(arguments[2]);
  glm_model* model = nullptr;
  require(glm_load(arguments[1], &options, &model));
  std::cout << "{\"load_seconds\": " << count_seconds(started, Clock::now()) << "}" << std::endl;
  for (std::string line; std::getline(std::cin, line);) answer_line(model, line);
  glm_free(model);
}
