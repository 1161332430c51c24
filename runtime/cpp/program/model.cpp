#include "model.hpp"

void check(glm_status status) {
  if (status != GLM_OK) throw Failure(status);
}

namespace {

glm_load_options make_options(const Arguments& arguments) {
  glm_load_options options{};
  options.size = sizeof options;
  options.threads = static_cast<int32_t>(arguments.threads.value_or(0));
  options.verify_hashes = arguments.is_verified;
  options.huge_pages = arguments.huge_pages.value_or(arguments.command == "bench");
  options.prepared = arguments.prepared ? arguments.prepared->c_str() : nullptr;
  if (arguments.rope_scaling) options.rope_factor = arguments.factor.value_or(1);
  options.rope_original_context = arguments.original_context.value_or(0);
  return options;
}

}  // namespace

Model load(const Arguments& arguments) {
  glm_load_options options = make_options(arguments);
  glm_model* model = nullptr;
  check(glm_load(arguments.folder.c_str(), &options, &model));
  return Model(model);
}

void prepare(const Arguments& arguments) {
  glm_load_options options = make_options(arguments);
  check(glm_prepare(arguments.folder.c_str(), arguments.output->c_str(), &options));
}

Session new_session(const Model& model) {
  glm_session* session = nullptr;
  check(glm_new_session(model.get(), &session));
  return Session(session);
}

glm_model_info describe(const Model& model) {
  glm_model_info info{};
  info.size = sizeof info;
  check(glm_describe(model.get(), &info));
  return info;
}

glm_settings read_defaults(const Model& model) {
  glm_settings settings{};
  settings.size = sizeof settings;
  check(glm_default_settings(model.get(), &settings));
  return settings;
}

std::vector<int32_t> tokenize(const Model& model, const std::string& text) {
  std::vector<int32_t> ids(text.size() + 1);  // a text rarely has more tokens than bytes
  for (int round = 0; round < 2; ++round) {
    size_t count = 0;
    check(glm_tokenize(model.get(), text.data(), text.size(), ids.data(), ids.size(), &count));
    bool is_whole = count <= ids.size();
    ids.resize(count);
    if (is_whole) break;
  }
  return ids;
}

namespace {

std::vector<glm_chat_message> view(const Messages& messages) {
  std::vector<glm_chat_message> views;
  for (const auto& [role, content] : messages) {
    if (content.find('\0') != std::string::npos) {
      throw Failure(GLM_BAD_PROMPT,
                    "the message contains a zero byte, which a chat message cannot; remove it, or "
                    "use generate --raw.");
    }
    views.push_back({role.c_str(), content.c_str(), nullptr});
  }
  return views;
}

std::vector<int32_t> encode(const Model& model, const std::vector<glm_chat_message>& messages,
                            const glm_chat_options& options) {
  std::vector<int32_t> ids;
  for (int round = 0; round < 2; ++round) {  // the first call returns the count
    size_t count = 0;
    check(glm_encode_chat(model.get(), messages.data(), messages.size(), &options, ids.data(),
                          ids.size(), &count));
    ids.resize(count);
  }
  return ids;
}

}  // namespace

std::vector<int32_t> encode_chat(const Model& model, const Messages& messages,
                                 const Arguments& arguments, bool is_sanitized) {
  glm_chat_options options{sizeof options, arguments.thinking, arguments.prefill.has_value(),
                           arguments.is_sanitized.value_or(is_sanitized),
                           arguments.tools ? arguments.tools->c_str() : nullptr, nullptr};
  return encode(model, view(messages), options);
}

bool reads_thinking(const Model& model, const Messages& messages, int thinking) {
  glm_chat_options asked{sizeof asked, thinking, 0, 0, nullptr, nullptr};
  glm_chat_options plain{sizeof plain, -1, 0, 0, nullptr, nullptr};
  return encode(model, view(messages), asked) != encode(model, view(messages), plain);
}
