// glm-run: answers in the shell, through glm.h alone.
#include <chrono>
#include <cstdio>
#include <memory>
#include <mutex>
#include <vector>

#include "arguments.hpp"
#include "console.hpp"
#include "glm.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Failure : std::runtime_error {
  explicit Failure(glm_status failed) : std::runtime_error(glm_error_text()), status(failed) {}
  glm_status status;
};

struct Free {
  void operator()(glm_model* p) const { glm_free(p); }
  void operator()(glm_session* p) const { glm_free_session(p); }
};
using Model = std::unique_ptr<glm_model, Free>;
using Session = std::unique_ptr<glm_session, Free>;
using Messages = std::vector<std::pair<std::string, std::string>>;  // role, content

std::mutex running_lock;  // a session that is being cancelled must not be freed meanwhile
glm_session* running_session = nullptr;

void check(glm_status status) {
  if (status != GLM_OK) throw Failure(status);
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void mark_running(glm_session* session) {
  std::lock_guard<std::mutex> guard(running_lock);
  running_session = session;
}

// Ctrl-C ends the answer that is being written; without one, the program.
void interrupt() {
  std::lock_guard<std::mutex> guard(running_lock);
  if (running_session == nullptr) leave(130);
  glm_cancel(running_session);
}

Model load(const Arguments& arguments) {
  glm_load_options options{};
  options.size = sizeof options;
  options.threads = static_cast<int32_t>(arguments.threads.value_or(0));
  options.verify_hashes = arguments.is_verified;
  glm_model* model = nullptr;
  check(glm_load(arguments.folder.c_str(), &options, &model));
  return Model(model);
}

std::vector<int32_t> tokenize(const glm_model* model, const std::string& text) {
  std::vector<int32_t> ids(text.size() + 1);  // no text has more tokens than bytes
  size_t count = 0;
  check(glm_tokenize(model, text.data(), text.size(), ids.data(), ids.size(), &count));
  ids.resize(count);
  return ids;
}

std::string render(const glm_model* model, const Messages& messages, int thinking) {
  std::vector<glm_message> views;
  for (const auto& [role, content] : messages) views.push_back({role.c_str(), content.c_str()});
  std::string text;
  for (int round = 0; round < 2; ++round) {  // the first one asks for the length
    size_t length = 0;
    check(glm_render_chat(model, views.data(), views.size(), thinking, text.data(), text.size(),
                          &length));
    text.resize(length);
  }
  return text;
}

struct Answer {
  std::vector<int32_t> prompt, tokens;
  std::string text;
  glm_finish finish = GLM_GOES_ON;
  bool is_shown = false;
  Clock::time_point start, first, last;
};

int take_piece(void* user, const glm_piece* piece) {
  auto* answer = static_cast<Answer*>(user);
  answer->last = Clock::now();
  if (answer->tokens.empty()) answer->first = answer->last;
  answer->tokens.push_back(piece->token);
  answer->text.append(piece->text, piece->length);
  answer->finish = piece->finish;
  if (!answer->is_shown) return 0;
  std::fwrite(piece->text, 1, piece->length, stdout);
  return std::fflush(stdout) == 0 ? 0 : 1;  // nobody reads any more
}

Answer answer_prompt(glm_session* session, std::vector<int32_t> prompt,
                     const glm_settings& settings, bool is_shown) {
  Answer answer;
  answer.prompt = std::move(prompt);
  answer.is_shown = is_shown;
  answer.start = Clock::now();
  mark_running(session);
  glm_status status = glm_generate(session, answer.prompt.data(), answer.prompt.size(), &settings,
                                   take_piece, &answer);
  mark_running(nullptr);
  if (is_shown) std::puts("");
  check(status);
  return answer;
}

double measure_rate(const Answer& answer) {
  double seconds = std::chrono::duration<double>(answer.last - answer.first).count();
  return seconds > 0 ? static_cast<double>(answer.tokens.size() - 1) / seconds : 0;
}

std::string quote(const std::string& text) {
  std::string quoted = "\"";
  for (char character : text) {
    auto byte = static_cast<unsigned char>(character);
    if (byte == '"' || byte == '\\') quoted += '\\';
    if (byte >= 0x20) {
      quoted += character;
      continue;
    }
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\u%04x", byte);
    quoted += escaped;
  }
  return quoted + "\"";
}

std::string list(const std::vector<int32_t>& ids) {
  std::string text = "[";
  for (int32_t id : ids) text += (text.size() > 1 ? ", " : "") + std::to_string(id);
  return text + "]";
}

void print_json(const Answer& answer, double load_seconds) {
  double first_ms =
      std::chrono::duration<double, std::milli>(answer.first - answer.start).count();
  std::printf("{\"prompt_token_ids\": %s, \"token_ids\": %s, \"text\": %s, \"finish_reason\": %s, ",
              list(answer.prompt).c_str(), list(answer.tokens).c_str(),
              quote(answer.text).c_str(),
              answer.finish == GLM_STOPPED ? "\"stop\"" : "\"length\"");
  std::printf("\"load_seconds\": %.4f, \"time_to_first_token_ms\": %.2f, "
              "\"tokens_per_second\": %.2f}\n",
              load_seconds, first_ms, measure_rate(answer));
}

void generate(const Arguments& arguments) {
  auto start = Clock::now();
  Model model = load(arguments);
  double load_seconds = seconds_since(start);
  std::string prompt = *arguments.prompt == "-" ? read_all() : *arguments.prompt;
  if (!arguments.is_raw) {
    Messages messages;
    if (arguments.system) messages.emplace_back("system", *arguments.system);
    messages.emplace_back("user", prompt);
    prompt = render(model.get(), messages, arguments.thinking);
  }
  glm_settings settings{};
  settings.size = sizeof settings;
  check(glm_default_settings(model.get(), &settings));
  glm_session* opened = nullptr;
  check(glm_new_session(model.get(), &opened));
  Session session(opened);
  Answer answer = answer_prompt(opened, tokenize(model.get(), prompt),
                                merge_settings(arguments, settings), !arguments.is_json);
  if (arguments.is_json) {
    print_json(answer, load_seconds);
  } else {
    std::fprintf(stderr, "%zu tokens, %.1f tokens/s\n", answer.tokens.size(), measure_rate(answer));
  }
}

void chat(const Arguments& arguments) {
  Model model = load(arguments);
  glm_settings settings{};
  settings.size = sizeof settings;
  check(glm_default_settings(model.get(), &settings));
  settings = merge_settings(arguments, settings);
  glm_session* opened = nullptr;
  check(glm_new_session(model.get(), &opened));
  Session session(opened);
  Messages messages;
  if (arguments.system) messages.emplace_back("system", *arguments.system);
  for (std::string line; std::fputs("> ", stderr), read_line(&line);) {
    if (line.empty()) continue;
    messages.emplace_back("user", line);
    try {
      std::string text = render(model.get(), messages, arguments.thinking);
      Answer answer = answer_prompt(opened, tokenize(model.get(), text), settings, true);
      messages.emplace_back("assistant", answer.text);
    } catch (const Failure& failure) {
      if (failure.status != GLM_CANCELLED && failure.status != GLM_BAD_PROMPT) throw;
      std::fprintf(stderr, "%s\n", failure.what());
      messages.pop_back();
    }
  }
}

void tokenize_lines(const Arguments& arguments) {
  Model model = load(arguments);
  for (std::string line; read_line(&line);) {
    std::printf("%s\n", list(tokenize(model.get(), line)).c_str());
  }
}

int run(const Arguments& arguments) {
  if (arguments.is_help) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  watch_interrupts(interrupt);
  if (arguments.command == "generate") generate(arguments);
  if (arguments.command == "chat") chat(arguments);
  if (arguments.command == "tokenize") tokenize_lines(arguments);
  return 0;
}

}  // namespace

namespace {

int explain(int count, char** values) {
  try {
    return run(parse_arguments(list_arguments(count, values)));
  } catch (const UsageError& error) {
    std::fprintf(stderr, "glm-run: %s\nSee glm-run --help.\n", error.what());
    return 2;
  } catch (const Failure& failure) {
    std::fprintf(stderr, "glm-run: %s\n", failure.what());
    return failure.status == GLM_CANCELLED ? 130 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "glm-run: %s\n", error.what());
    return 1;
  }
}

}  // namespace

int main(int count, char** values) {
  open_streams();
  int code = explain(count, values);
  std::fflush(nullptr);
  leave(code);
}
