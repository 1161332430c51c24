#include "session.hpp"

#include <algorithm>

#include "answer.hpp"
#include "errors.hpp"
#include "huge_pages.hpp"
#include "paths.hpp"
#include "prepared.hpp"
#include "rotary.hpp"

namespace {

constexpr char kTableName[] = "chat_table.json";
constexpr int32_t kMaxThreads = 1024;
constexpr int64_t kRoomAhead = 512;  // cache that is reserved for an answer, in tokens

glm::Manifest open_manifest(const std::string& folder, const glm_load_options& options) {
  bool has_hashes = options.verify_hashes != 0;
  std::string text = glm::read_file(folder, "glm_manifest.json");
  glm::Manifest manifest = glm::parse_manifest(text);
  glm::require_version(manifest.oldest_onnxruntime);
  if (has_hashes) glm::require_unchanged(folder, text);
  glm::require_files(folder, manifest.files, has_hashes);
  if (options.rope_factor != 0 || options.rope_original_context != 0) {
    glm::scale_rope(text, {options.rope_factor, options.rope_original_context}, &manifest);
  }
  return manifest;
}

// The path of the graph to open.
std::filesystem::path find_graph(const std::string& folder, const glm::Manifest& manifest,
                                 const glm_load_options& options) {
  std::string place = options.prepared == nullptr ? folder : options.prepared;
  if (options.prepared != nullptr) {
    glm::check_prepared(place, manifest, options.verify_hashes != 0);
  }
  return glm::to_path(place) / "model.onnx";
}

std::optional<glm::ChatTable> open_table(const std::string& folder, const glm::Manifest& manifest) {
  if (manifest.files.count(kTableName) == 0) return std::nullopt;
  return glm::ChatTable(glm::read_file(folder, kTableName));
}

// Checks that every id of the tokenizer has a logit.
glm::Tokenizer open_tokenizer(const std::string& folder, const glm::ModelShape& model) {
  glm::Tokenizer tokenizer = glm::parse_tokenizer(glm::read_file(folder, "tokenizer.json"));
  if (tokenizer.size() <= static_cast<size_t>(model.tokenizer_vocab_size)) return tokenizer;
  throw glm::Error(GLM_BAD_FOLDER, "tokenizer.json has ids up to " +
                                       std::to_string(tokenizer.size() - 1) +
                                       " where ids below the manifest's tokenizer_vocab_size = " +
                                       std::to_string(model.tokenizer_vocab_size) +
                                       " are expected; export the folder again.");
}

int32_t check_threads(int32_t threads) {
  if (threads >= 0 && threads <= kMaxThreads) return threads;
  throw glm::Error(GLM_BAD_SETTING, "threads is " + std::to_string(threads) + " where 0 to " +
                                        std::to_string(kMaxThreads) +
                                        " is expected; 0 means the physical cores.");
}

void check_prompt(const std::vector<int32_t>& prompt, const glm::ModelShape& model) {
  auto fail = [](const std::string& text) { throw glm::Error(GLM_BAD_PROMPT, text); };
  if (prompt.empty()) {
    fail("the prompt is empty; pass at least one token.");
  }
  if (static_cast<int64_t>(prompt.size()) > model.context_length) {
    glm::refuse_length(prompt.size(), model.context_length);
  }
  for (int32_t token : prompt) {
    if (token >= 0 && token < model.tokenizer_vocab_size) continue;
    fail("the prompt contains the id " + std::to_string(token) + " where ids from 0 to below " +
         std::to_string(model.tokenizer_vocab_size) +
         " are expected; encode it with this folder's tokenizer.");
  }
}

size_t count_shared(const std::vector<int32_t>& left, const std::vector<int32_t>& right) {
  size_t shorter = std::min(left.size(), right.size());
  auto end = left.begin() + static_cast<std::ptrdiff_t>(shorter);
  return static_cast<size_t>(std::mismatch(left.begin(), end, right.begin()).first - left.begin());
}

}  // namespace

void glm::refuse_length(uint64_t count, int64_t context_length) {
  throw Error(GLM_BAD_PROMPT, std::to_string(count) +
                                  " tokens do not fit into the model's context of " +
                                  std::to_string(context_length) +
                                  "; shorten the prompt, or start a new conversation.");
}

glm_model::glm_model(const std::string& folder, const glm_load_options& options)
    : manifest(open_manifest(folder, options)),
      tokenizer(open_tokenizer(folder, manifest.model)),
      chat_table(open_table(folder, manifest)),
      defaults(glm::parse_generation_config(glm::read_file(folder, "generation_config.json"))),
      graph(find_graph(folder, manifest, options), options.prepared != nullptr, manifest,
            check_threads(options.threads)) {
  if (options.huge_pages != 0) glm::move_to_huge_pages();
}

void glm_model::prepare(const std::string& folder, const std::string& output,
                        const glm_load_options& options) {
  int32_t threads = check_threads(options.threads);
  glm::write_prepared(folder, open_manifest(folder, options), output, threads);
}

// Marks the session as busy during a call, so that `cancel` reaches the decoder.
class BusySession {
 public:
  explicit BusySession(glm_session* session) : session_(session) {
    std::lock_guard<std::mutex> guard(session->lock);
    if (session->is_running) {
      throw glm::Error(GLM_BAD_SETTING,
                       "the session is used by another thread; create a session for each thread.");
    }
    session->decoder.uncancel();
    session->is_running = true;
  }
  ~BusySession() {
    std::lock_guard<std::mutex> guard(session_->lock);
    session_->is_running = false;
    // A failed run adds nothing to the cache. Earlier tokens remain.
    session_->tokens.resize(static_cast<size_t>(session_->decoder.length()));
  }
  BusySession(const BusySession&) = delete;

 private:
  glm_session* session_;
};

void glm_session::cancel() {
  std::lock_guard<std::mutex> guard(lock);
  if (is_running) decoder.cancel();
}

// Computes the tokens of a prompt that are not cached, at least the last one. Returns the logits.
const float* glm_session::read(const std::vector<int32_t>& prompt, int64_t room) {
  size_t shared = std::min(count_shared(tokens, prompt), prompt.size() - 1);
  decoder.truncate(static_cast<int64_t>(shared));
  tokens = prompt;  // set first; `BusySession` removes the tokens that were not computed
  decoder.reserve(static_cast<int64_t>(prompt.size()) + room);
  return decoder.append(prompt.data() + shared, prompt.size() - shared);
}

void glm_session::measure(const std::vector<int32_t>& prompt,
                          const std::function<void(const float*)>& take) {
  check_prompt(prompt, model.manifest.model);
  BusySession running(this);
  take(read(prompt, 0));  // before another call may overwrite the logits
}

void glm_session::generate(const std::vector<int32_t>& prompt, const glm_settings& settings,
                           glm_callback callback, void* user) {
  const glm::ModelShape& shape = model.manifest.model;
  check_prompt(prompt, shape);
  bool has_turns = settings.has_tools == 2 && model.chat_table &&
                   model.chat_table->call_form() == glm::CallForm::kAllTools;
  glm::Answer answer(model.tokenizer, shape, settings, prompt,
                     std::string(has_turns ? glm::kTurn : "\n"));
  BusySession running(this);
  const float* logits = read(prompt, std::min(answer.remaining(), kRoomAhead));
  while (true) {
    glm::Answer::Piece found = answer.write(logits);
    const auto& [text, reasoning] = found.part;
    glm_piece piece{found.token,  text.c_str(),      text.size(),
                    found.finish, reasoning.c_str(), reasoning.size()};
    if (callback != nullptr && callback(user, &piece) != 0) {
      throw glm::Error(GLM_CANCELLED, "the answer was cancelled by the callback.");
    }
    if (found.finish != GLM_GOES_ON) return;
    tokens.push_back(found.token);
    logits = decoder.append(&found.token, 1);
  }
}
