// Implements glm.h: converts exceptions to statuses and messages, and checks pointers for NULL.
#include "glm.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <new>

#include "errors.hpp"
#include "huge_pages.hpp"
#include "json_text.hpp"
#include "session.hpp"
#include "settings.hpp"
#include "tool_calls.hpp"
#include "utf8.hpp"

namespace {

// A fixed size, so that the message about missing memory needs no memory.
thread_local char error_text[1024] = "";

glm_status fail(glm_status status, const char* text) {
  std::snprintf(error_text, sizeof error_text, "%s", text);
  // The message may quote invalid UTF-8 of the caller, or end inside a character.
  while (true) {
    size_t wrong = glm::find_invalid_utf8(error_text);
    if (wrong == std::string_view::npos) return status;
    error_text[wrong] = '?';
  }
}

template <class Body>
glm_status guard(Body body) noexcept {
  try {
    body();
    return GLM_OK;
  } catch (const glm::Error& error) {
    return fail(error.status(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(GLM_NO_MEMORY,
                "out of memory; close other programs, or use a smaller model or context.");
  } catch (const std::exception& error) {
    return fail(GLM_RUN_FAILED, error.what());
  } catch (...) {
    return fail(GLM_RUN_FAILED, "an unknown exception was thrown; please report this bug.");
  }
}

// Sizes of these structures in the first version of the header.
constexpr size_t kFirstLoadOptions = offsetof(glm_load_options, prepared) + sizeof(char*);
constexpr size_t kFirstSettings = offsetof(glm_settings, dry_breaker_count) + sizeof(size_t);
constexpr size_t kFirstChatOptions = offsetof(glm_chat_options, tools) + sizeof(char*);
constexpr size_t kFirstModelInfo = offsetof(glm_model_info, threads) + sizeof(int32_t);
constexpr size_t kMaxSize = 4096;

void check_size(size_t size, size_t first, const char* name) {
  if (size >= first && size <= kMaxSize) return;
  throw glm::Error(GLM_BAD_SETTING, std::string(name) + ".size is " + std::to_string(size) +
                                        " where at least " + std::to_string(first) +
                                        " is expected; set it to sizeof the structure.");
}

// Copies the caller's structure, which is shorter or longer than ours with an older or newer
// header. Members that the caller does not have come from `defaults`. Members that we do not have
// must be 0.
template <class T>
T read_struct(const T& given, T defaults, size_t first, const char* name) {
  check_size(given.size, first, name);
  size_t known = std::min(given.size, sizeof(T));
  auto bytes = reinterpret_cast<const char*>(&given);
  if (std::any_of(bytes + known, bytes + given.size, [](char byte) { return byte != 0; })) {
    throw glm::Error(GLM_BAD_SETTING, std::string(name) +
                                          " uses members that this version of the library does not "
                                          "know; use a newer library, or set them to 0.");
  }
  std::memcpy(&defaults, &given, known);
  return defaults;
}

void require(bool is_given, const char* name) {
  if (is_given) return;
  throw glm::Error(GLM_BAD_SETTING, std::string(name) + " is NULL; pass a valid pointer.");
}

glm_load_options read_options(const glm_load_options* options) {
  if (options == nullptr) return {};
  return read_struct(*options, glm_load_options{}, kFirstLoadOptions, "glm_load_options");
}

// Writes the members that the caller's structure has. Members that we do not have become 0.
template <class T>
void write_struct(const T& values, T* given, size_t first, const char* name) {
  size_t size = given->size;
  check_size(size, first, name);
  std::memset(static_cast<void*>(given), 0, size);
  std::memcpy(given, &values, std::min(size, sizeof(T)));
  given->size = size;
}

std::vector<int32_t> copy_ids(const int32_t* ids, size_t count, int64_t context_length) {
  require(ids != nullptr || count == 0, "ids");
  if (count > static_cast<uint64_t>(context_length)) glm::refuse_length(count, context_length);
  return count == 0 ? std::vector<int32_t>() : std::vector<int32_t>(ids, ids + count);
}

void check_output(const void* output, size_t capacity, const size_t* count) {
  require(output != nullptr || capacity == 0, "the output");
  require(count != nullptr, "the pointer to the length");
}

// Copies as many values as fit. `*count` becomes the number of all values.
template <class T>
void write_array(const T* values, size_t found, T* output, size_t capacity, size_t* count) {
  check_output(output, capacity, count);
  size_t copied = found < capacity ? found : capacity;
  if (copied > 0) std::memcpy(output, values, copied * sizeof(T));
  *count = found;
}

const glm::ChatTable& require_table(const glm_model* model) {
  require(model != nullptr, "model");
  if (model->chat_table) return *model->chat_table;
  throw glm::Error(GLM_UNSUPPORTED,
                   "the folder has no chat_table.json, because its chat template cannot be "
                   "expressed as a table or is missing; pass the whole prompt as text.");
}

glm::Chat read_chat(const glm_chat_message* messages, size_t count,
                    const glm_chat_options& options) {
  require(messages != nullptr || count == 0, "messages");
  glm::Chat chat;
  chat.thinking = options.thinking;
  chat.continues_answer = options.continues_answer != 0;
  if (options.tools != nullptr) chat.tools = glm::parse_tools(options.tools);
  for (size_t i = 0; i < count; ++i) {
    const auto& [role, content, calls] = messages[i];
    require(role != nullptr && content != nullptr, "a message");
    chat.messages.push_back({role, content});
    if (calls != nullptr) chat.messages.back().calls = glm::parse_calls(calls);
    const char* metadata = options.metadata == nullptr ? nullptr : options.metadata[i];
    if (metadata != nullptr) chat.messages.back().metadata = metadata;
  }
  return chat;
}

}  // namespace

const char* glm_version(void) { return GLM_VERSION; }

void glm_use_huge_pages(void) {
  try {
    glm::move_to_huge_pages();
  } catch (const std::exception&) {  // without memory for the list of ranges, all stay as they are
  }
}

const char* glm_error_text(void) { return error_text; }

glm_status glm_load(const char* folder, const glm_load_options* options, glm_model** model) {
  return guard([&] {
    require(folder != nullptr, "folder");
    require(model != nullptr, "the pointer to the model");
    *model = nullptr;
    *model = new glm_model(folder, read_options(options));
  });
}

glm_status glm_prepare(const char* folder, const char* output, const glm_load_options* options) {
  return guard([&] {
    require(folder != nullptr, "folder");
    require(output != nullptr, "output");
    glm_model::prepare(folder, output, read_options(options));
  });
}

void glm_free(glm_model* model) { delete model; }

glm_status glm_describe(const glm_model* model, glm_model_info* info) {
  return guard([&] {
    require(model != nullptr, "model");
    require(info != nullptr, "info");
    const glm::ModelShape& shape = model->manifest.model;
    glm_model_info found{sizeof found, shape.context_length, shape.tokenizer_vocab_size,
                         shape.vocab_size, model->graph.threads()};
    write_struct(found, info, kFirstModelInfo, "glm_model_info");
  });
}

glm_status glm_tokenize(const glm_model* model, const char* text, size_t length, int32_t* ids,
                        size_t capacity, size_t* count) {
  return guard([&] {
    require(model != nullptr, "model");
    require(text != nullptr || length == 0, "text");
    std::vector<int32_t> found =
        model->tokenizer.encode(length == 0 ? std::string_view() : std::string_view(text, length));
    write_array(found.data(), found.size(), ids, capacity, count);
  });
}

glm_status glm_detokenize(const glm_model* model, const int32_t* ids, size_t count, char* text,
                          size_t capacity, size_t* length) {
  return guard([&] {
    require(model != nullptr, "model");
    require(ids != nullptr || count == 0, "ids");
    std::string found = model->tokenizer.decode(ids, count);
    write_array(found.data(), found.size(), text, capacity, length);
  });
}

glm_status glm_render_chat(const glm_model* model, const glm_message* messages, size_t count,
                           int32_t thinking, char* text, size_t capacity, size_t* length) {
  return guard([&] {
    const glm::ChatTable& table = require_table(model);
    require(messages != nullptr || count == 0, "messages");
    glm::Chat chat;
    chat.thinking = thinking;
    for (size_t i = 0; i < count; ++i) {
      require(messages[i].role != nullptr && messages[i].content != nullptr, "a message");
      chat.messages.push_back({messages[i].role, messages[i].content});
    }
    std::string found = table.render(std::move(chat)).text;
    write_array(found.data(), found.size(), text, capacity, length);
  });
}

glm_status glm_encode_chat(const glm_model* model, const glm_chat_message* messages, size_t count,
                           const glm_chat_options* options, int32_t* ids, size_t capacity,
                           size_t* found) {
  return guard([&] {
    const glm::ChatTable& table = require_table(model);
    glm_chat_options chosen{sizeof chosen, -1, 0, 0, nullptr, nullptr};
    if (options != nullptr) {
      chosen = read_struct(*options, chosen, kFirstChatOptions, "glm_chat_options");
    }
    glm::RenderedChat chat = table.render(read_chat(messages, count, chosen));
    std::vector<int32_t> encoded = chosen.is_sanitized
                                       ? model->tokenizer.encode_around(chat.text, chat.contents)
                                       : model->tokenizer.encode(chat.text);
    write_array(encoded.data(), encoded.size(), ids, capacity, found);
  });
}

glm_status glm_find_calls(const glm_model* model, const char* answer, size_t size,
                          const char* tools, char* calls, size_t capacity, size_t* length,
                          size_t* text_size) {
  return guard([&] {
    require(model != nullptr, "model");
    require(answer != nullptr || size == 0, "answer");
    require(tools != nullptr, "tools");
    require(text_size != nullptr, "the pointer to the size of the text");
    bool has_table = model->chat_table.has_value();
    glm::CallForm form = has_table ? model->chat_table->call_form() : glm::CallForm::kNameLine;
    std::string_view text = size == 0 ? std::string_view() : std::string_view(answer, size);
    glm::FoundCalls found = glm::find_calls(text, glm::parse_tools(tools), form);
    std::string json = "[";
    for (const glm::CallText& call : found.calls) {
      json += (json.size() > 1 ? ", " : "");
      json += "{\"name\": " + glm::quote_json(call.name) +
              ", \"arguments\": " + glm::quote_json(call.arguments) + "}";
    }
    json += "]";
    write_array(json.data(), json.size(), calls, capacity, length);
    *text_size = found.text_length;
  });
}

glm_status glm_default_settings(const glm_model* model, glm_settings* settings) {
  return guard([&] {
    require(model != nullptr, "model");
    require(settings != nullptr, "settings");
    write_struct(model->defaults, settings, kFirstSettings, "glm_settings");
  });
}

glm_status glm_new_session(const glm_model* model, glm_session** session) {
  return guard([&] {
    require(model != nullptr, "model");
    require(session != nullptr, "the pointer to the session");
    *session = nullptr;
    *session = new glm_session(*model);
  });
}

void glm_free_session(glm_session* session) { delete session; }

glm_status glm_generate(glm_session* session, const int32_t* prompt, size_t count,
                        const glm_settings* settings, glm_callback callback, void* user) {
  return guard([&] {
    require(session != nullptr, "session");
    glm_settings chosen = session->model.defaults;
    if (settings != nullptr) {
      chosen = read_struct(*settings, glm::make_neutral_settings(), kFirstSettings, "glm_settings");
    }
    int64_t context_length = session->model.manifest.model.context_length;
    session->generate(copy_ids(prompt, count, context_length), chosen, callback, user);
  });
}

void glm_cancel(glm_session* session) {
  if (session != nullptr) guard([&] { session->cancel(); });
}

glm_status glm_logits(glm_session* session, const int32_t* prompt, size_t count, float* logits,
                      size_t capacity, size_t* vocab_size) {
  return guard([&] {
    require(session != nullptr, "session");
    const glm::ModelShape& shape = session->model.manifest.model;
    check_output(logits, capacity, vocab_size);  // before a long prompt is read
    session->measure(copy_ids(prompt, count, shape.context_length), [&](const float* found) {
      write_array(found, static_cast<size_t>(shape.vocab_size), logits, capacity, vocab_size);
    });
  });
}
