// Many sessions of one model in threads, each cancelled from two others; answers that were not
// cancelled are all the same. For ThreadSanitizer.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "glm.h"

namespace {

constexpr int kSessions = 3, kAnswers = 25;
constexpr char kPrompt[] = "[gMASK]<sop><|user|>\nRecite Genesis 1:1.<|assistant|>\n";

using Ids = std::vector<int32_t>;

int take(void* user, const glm_piece* piece) {
  static_cast<Ids*>(user)->push_back(piece->token);
  return 0;
}

struct Counts {
  std::atomic<int> answers{0}, cancelled{0}, wrong{0};
};

Ids tokenize(const glm_model* model) {
  Ids ids(sizeof kPrompt);
  size_t count = 0;
  glm_tokenize(model, kPrompt, std::strlen(kPrompt), ids.data(), ids.size(), &count);
  ids.resize(count);
  return ids;
}

glm_status answer(const glm_model* model, glm_session* session, Ids* answered) {
  glm_settings settings{};
  settings.size = sizeof settings;
  glm_default_settings(model, &settings);
  settings.temperature = 0;
  settings.max_new_tokens = 24;
  Ids prompt = tokenize(model);
  return glm_generate(session, prompt.data(), prompt.size(), &settings, take, answered);
}

void answer_often(const glm_model* model, glm_session* session, const Ids& expected,
                  Counts* counts) {
  for (int i = 0; i < kAnswers; ++i) {
    Ids answered;
    glm_status status = answer(model, session, &answered);
    ++counts->answers;
    if (status == GLM_CANCELLED) {
      ++counts->cancelled;
    } else if (status != GLM_OK || answered != expected) {
      ++counts->wrong;
      std::printf("status %d: %s\n", status, glm_error_text());
    }
  }
}

}  // namespace

int main(int count, char** values) {
  glm_model* model = nullptr;
  if (count != 2 || glm_load(values[1], nullptr, &model) != GLM_OK) {
    std::printf("%s\n", glm_error_text());
    return 1;
  }
  std::vector<glm_session*> sessions(kSessions);
  for (auto& session : sessions) glm_new_session(model, &session);
  Ids expected;
  auto start = std::chrono::steady_clock::now();
  answer(model, sessions[0], &expected);
  auto alone = std::chrono::steady_clock::now() - start;
  Counts counts;
  std::atomic<bool> is_done{false};
  std::vector<std::thread> workers, cancellers;
  for (glm_session* session : sessions) {
    workers.emplace_back([&, session] { answer_often(model, session, expected, &counts); });
  }
  for (int answers : {5, 7}) {  // about so many are written between two of a thread's calls
    cancellers.emplace_back([&, answers] {
      while (!is_done) {
        for (glm_session* session : sessions) {
          std::this_thread::sleep_for(alone * answers / kSessions);
          glm_cancel(session);
        }
      }
    });
  }
  for (auto& worker : workers) worker.join();
  is_done = true;
  for (auto& canceller : cancellers) canceller.join();
  for (glm_session* session : sessions) glm_free_session(session);
  glm_free(model);
  std::printf("%d answers, of which %d were cancelled\n", counts.answers.load(),
              counts.cancelled.load());
  bool is_mixed = counts.cancelled > 0 && counts.cancelled < counts.answers;
  std::fflush(nullptr);
  // Not exit: a thread that ONNX Runtime 1.31 leaves behind reads what exit destroys.
  std::_Exit(counts.wrong == 0 && is_mixed && !expected.empty() ? 0 : 2);
}
