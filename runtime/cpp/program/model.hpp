// C++ wrappers of glm.h: handles that free themselves, exceptions instead of statuses.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "glm.h"

struct Failure : std::runtime_error {
  explicit Failure(glm_status failed, const std::string& text = glm_error_text())
      : std::runtime_error(text), status(failed) {}
  glm_status status;
};

struct Free {
  void operator()(glm_model* p) const { glm_free(p); }
  void operator()(glm_session* p) const { glm_free_session(p); }
};
using Model = std::unique_ptr<glm_model, Free>;
using Session = std::unique_ptr<glm_session, Free>;
using Messages = std::vector<std::pair<std::string, std::string>>;  // role, content

// Each of these functions throws Failure.
void check(glm_status status);
Model load(const Arguments& arguments);
void prepare(const Arguments& arguments);  // writes a copy with weights packed for this machine
Session new_session(const Model& model);
glm_model_info describe(const Model& model);
glm_settings read_defaults(const Model& model);
std::vector<int32_t> tokenize(const Model& model, const std::string& text);
// The ids of a conversation's prompt; `is_sanitized` is the default of the command. With --prefill
// the last message is the beginning of the answer.
std::vector<int32_t> encode_chat(const Model& model, const Messages& messages,
                                 const Arguments& arguments, bool is_sanitized);
// Whether --thinking or --no-thinking changes the prompt.
bool reads_thinking(const Model& model, const Messages& messages, int thinking);
