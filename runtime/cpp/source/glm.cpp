// The border to C: every exception becomes a status and a sentence, every NULL is refused.
#include "glm.h"

#include <cstdio>
#include <cstring>
#include <new>

#include "errors.hpp"
#include "session.hpp"

namespace {

// Of a fixed size, so that a sentence about memory needs none.
thread_local char error_text[1024] = "";

glm_status fail(glm_status status, const char* text) {
  std::snprintf(error_text, sizeof error_text, "%s", text);
  return status;
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
                "memory ran out; close other programs, or use a smaller model or context.");
  } catch (const std::exception& error) {
    return fail(GLM_RUN_FAILED, error.what());
  } catch (...) {
    return fail(GLM_RUN_FAILED, "something unknown was thrown; report this.");
  }
}

void require(bool is_given, const char* name) {
  if (is_given) return;
  throw glm::Error(GLM_BAD_SETTING,
                   std::string(name) + " is NULL where it is needed; give a pointer.");
}

std::vector<int32_t> copy_ids(const int32_t* ids, size_t count) {
  require(ids != nullptr || count == 0, "the array of ids");
  return count == 0 ? std::vector<int32_t>() : std::vector<int32_t>(ids, ids + count);
}

// As many as there is room for; `*count` says how many there are.
template <class T>
void give(const T* values, size_t found, T* output, size_t capacity, size_t* count) {
  require(output != nullptr || capacity == 0, "the output");
  require(count != nullptr, "the place for the length");
  size_t copied = found < capacity ? found : capacity;
  if (copied > 0) std::memcpy(output, values, copied * sizeof(T));
  *count = found;
}

}  // namespace

const char* glm_error_text(void) { return error_text; }

glm_status glm_load(const char* folder, const glm_load_options* options, glm_model** model) {
  return guard([&] {
    require(folder != nullptr, "folder");
    require(model != nullptr, "the place for the model");
    *model = nullptr;
    *model = new glm_model(folder, options == nullptr ? glm_load_options{} : *options);
  });
}

void glm_free(glm_model* model) { delete model; }

glm_status glm_tokenize(const glm_model* model, const char* text, size_t length, int32_t* ids,
                        size_t capacity, size_t* count) {
  return guard([&] {
    require(model != nullptr, "model");
    require(text != nullptr || length == 0, "text");
    std::vector<int32_t> found = model->tokenizer.encode(
        length == 0 ? std::string_view() : std::string_view(text, length));
    give(found.data(), found.size(), ids, capacity, count);
  });
}

glm_status glm_detokenize(const glm_model* model, const int32_t* ids, size_t count, char* text,
                          size_t capacity, size_t* length) {
  return guard([&] {
    require(model != nullptr, "model");
    require(ids != nullptr || count == 0, "the array of ids");
    std::string found = model->tokenizer.decode(ids, count);
    give(found.data(), found.size(), text, capacity, length);
  });
}

glm_status glm_render_chat(const glm_model* model, const glm_message* messages, size_t count,
                           int32_t thinking, char* text, size_t capacity, size_t* length) {
  return guard([&] {
    require(model != nullptr, "model");
    require(messages != nullptr || count == 0, "messages");
    if (!model->chat_table) {
      throw glm::Error(GLM_UNSUPPORTED,
                       "the folder has no chat_table.json: its template cannot be written as a "
                       "table, or it has none; give the whole prompt yourself.");
    }
    std::vector<glm::ChatMessage> copies;
    for (size_t i = 0; i < count; ++i) {
      require(messages[i].role != nullptr && messages[i].content != nullptr, "a message");
      copies.push_back({messages[i].role, messages[i].content});
    }
    std::string found = model->chat_table->render(std::move(copies), thinking);
    give(found.data(), found.size(), text, capacity, length);
  });
}

glm_status glm_default_settings(const glm_model* model, glm_settings* settings) {
  return guard([&] {
    require(model != nullptr, "model");
    require(settings != nullptr, "settings");
    *settings = model->defaults;
  });
}

glm_status glm_new_session(const glm_model* model, glm_session** session) {
  return guard([&] {
    require(model != nullptr, "model");
    require(session != nullptr, "the place for the session");
    *session = nullptr;
    *session = new glm_session(*model);
  });
}

void glm_free_session(glm_session* session) { delete session; }

glm_status glm_generate(glm_session* session, const int32_t* prompt, size_t count,
                        const glm_settings* settings, glm_callback callback, void* user) {
  return guard([&] {
    require(session != nullptr, "session");
    session->generate(copy_ids(prompt, count),
                      settings == nullptr ? session->model.defaults : *settings, callback, user);
  });
}

void glm_cancel(glm_session* session) {
  if (session != nullptr) guard([&] { session->cancel(); });
}

glm_status glm_logits(glm_session* session, const int32_t* prompt, size_t count, float* logits,
                      size_t capacity, size_t* vocab_size) {
  return guard([&] {
    require(session != nullptr, "session");
    const float* found = session->measure(copy_ids(prompt, count));
    give(found, static_cast<size_t>(session->model.manifest.model.vocab_size), logits, capacity,
         vocab_size);
  });
}
