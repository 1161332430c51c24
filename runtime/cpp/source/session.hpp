// The structures behind the handles of glm.h: a loaded folder, and a conversation with its KV
// cache.
#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "chat_table.hpp"
#include "decoder.hpp"
#include "graph.hpp"
#include "manifest.hpp"
#include "tokenizer.hpp"

namespace glm {

// Throws GLM_BAD_PROMPT: `count` tokens do not fit into the context.
[[noreturn]] void refuse_length(uint64_t count, int64_t context_length);

}  // namespace glm

struct glm_model {
  glm_model(const std::string& folder, const glm_load_options& options);

  const glm::Manifest manifest;
  const glm::Tokenizer tokenizer;
  const std::optional<glm::ChatTable> chat_table;
  const glm_settings defaults;
  const glm::Graph graph;

  // Throws glm::Error; see glm_prepare.
  static void prepare(const std::string& folder, const std::string& output,
                      const glm_load_options& options);
};

struct glm_session {
  explicit glm_session(const glm_model& opened)
      : model(opened), decoder(opened.graph, opened.manifest.model) {}

  // These functions throw glm::Error; see glm.h.
  void generate(const std::vector<int32_t>& prompt, const glm_settings& settings,
                glm_callback callback, void* user);
  // Passes the logits after a prompt to `take`, which must copy them.
  void measure(const std::vector<int32_t>& prompt, const std::function<void(const float*)>& take);
  void cancel();

  const glm_model& model;

 private:
  friend class BusySession;

  const float* read(const std::vector<int32_t>& prompt, int64_t room);

  glm::Decoder decoder;
  std::vector<int32_t> tokens;  // the tokens in the cache
  std::mutex lock;              // protects `is_running`
  bool is_running = false;
};
