#include "answering.hpp"

#include <atomic>
#include <cstdio>
#include <mutex>
#include <stdexcept>
#include <string_view>

#include "console.hpp"

namespace {

std::mutex running_lock;  // so that a session is not freed while it is cancelled
glm_session* running_session = nullptr;
// glm_cancel does nothing before glm_generate has begun. The answer then ends at its first piece.
std::atomic<bool> is_interrupted{false};

void mark_running(glm_session* session) {
  std::lock_guard<std::mutex> guard(running_lock);
  running_session = session;
  is_interrupted = false;
}

// Writes a model's text. A terminal gets "?" for each control character except tab and line feed:
// C0, DEL and C1, which is C2 80 to C2 9F in UTF-8. Escape sequences begin with one.
void write_text(std::string text, FILE* stream) {
  bool is_shown = is_terminal(stream);
  for (size_t i = 0; is_shown && i < text.size(); ++i) {
    auto byte = static_cast<unsigned char>(text[i]);
    bool is_c1 = byte == 0xC2 && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    bool is_control = (byte < 0x20 && byte != '\t' && byte != '\n') || byte == 0x7F || is_c1;
    if (is_control) text.replace(i, is_c1 ? 2 : 1, "?");
  }
  std::fwrite(text.data(), 1, text.size(), stream);
}

struct Listener {
  Answer answer;
  bool is_shown = false, was_thinking = false, is_unwritten = false;

  int take(const glm_piece& piece) {
    answer.last = Clock::now();
    if (answer.tokens.empty()) answer.first = answer.last;
    answer.tokens.push_back(piece.token);
    answer.text.append(piece.text, piece.length);
    answer.reasoning.append(piece.reasoning, piece.reasoning_length);
    answer.finish = piece.finish;
    if (is_shown) show(piece);
    return is_unwritten || is_interrupted ? 1 : 0;
  }

  void show(const glm_piece& piece) {
    write_text({piece.reasoning, piece.reasoning_length}, stderr);
    was_thinking = was_thinking || piece.reasoning_length > 0;
    if (was_thinking && piece.length > 0) std::fputs("\n\n", stderr);
    std::fflush(stderr);  // buffered on Windows
    if (piece.length == 0) return;
    was_thinking = false;
    write_text({piece.text, piece.length}, stdout);
    is_unwritten = std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
  }
};

int take_piece(void* user, const glm_piece* piece) {
  return static_cast<Listener*>(user)->take(*piece);
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

const char* name_finish(glm_finish finish) {
  if (finish == GLM_STOPPED) return "stop";
  return finish == GLM_STOP_STRING ? "stop_string" : "length";
}

std::string show_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", value);
  return text;
}

// Removes the calls at the end of an answer, and returns them as JSON.
std::string part_calls(const glm_model* model, const std::string& tools, std::string* answer) {
  std::string calls;
  size_t text_size = 0;
  for (int round = 0; round < 2; ++round) {  // the first call returns the length
    size_t length = 0;
    check(glm_find_calls(model, answer->data(), answer->size(), tools.c_str(), calls.data(),
                         calls.size(), &length, &text_size));
    calls.resize(length);
  }
  answer->resize(text_size);
  // Of GLM-4 All Tools: the beginning of a turn; see has_tools in glm.h.
  constexpr std::string_view kTurn = "\xEF\xB7\x92";
  for (size_t place = 0; (place = answer->find(kTurn, place)) != std::string::npos;) {
    answer->replace(place, kTurn.size(), "\n");
  }
  return calls;
}

}  // namespace

void flush_output() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  throw std::runtime_error(
      "the output cannot be written; check the disk, or the program that reads it.");
}

void interrupt() {
  std::lock_guard<std::mutex> guard(running_lock);
  if (running_session == nullptr) leave(130);
  is_interrupted = true;
  glm_cancel(running_session);
}

double Answer::measure_rate() const {
  double seconds = std::chrono::duration<double>(last - first).count();
  return seconds > 0 ? static_cast<double>(tokens.size() - 1) / seconds : 0;
}

Answer answer_prompt(const Session& session, std::vector<int32_t> prompt,
                     const glm_settings& settings, Show show) {
  Listener listener;
  listener.is_shown = show == Show::kText;
  Answer& answer = listener.answer;
  answer.prompt = std::move(prompt);
  answer.start = Clock::now();
  mark_running(session.get());
  glm_status status = glm_generate(session.get(), answer.prompt.data(), answer.prompt.size(),
                                   &settings, take_piece, &listener);
  mark_running(nullptr);
  if (listener.was_thinking) std::fputs("\n", stderr);
  if (listener.is_shown) std::puts("");
  flush_output();  // before the next prompt appears on stderr
  answer.is_cancelled = status == GLM_CANCELLED;
  if (!answer.is_cancelled) check(status);
  return answer;
}

std::string describe_as_json(const glm_model* model, const Answer& answer, double load_seconds,
                             const std::optional<std::string>& tools) {
  std::string text = answer.text, called, finish = name_finish(answer.finish);
  if (tools) {
    std::string calls = part_calls(model, *tools, &text);
    called = ", \"tool_calls\": " + calls;
    if (calls != "[]") finish = "tool_calls";
  }
  double first_ms = std::chrono::duration<double, std::milli>(answer.first - answer.start).count();
  double rate = answer.measure_rate();
  return "{\"text\": " + quote(text) + ", \"reasoning\": " + quote(answer.reasoning) +
         called + ", \"token_ids\": " + list_as_json(answer.tokens) +
         ", \"prompt_token_ids\": " + list_as_json(answer.prompt) + ", \"finish_reason\": \"" +
         finish +
         "\", \"prompt_tokens\": " + std::to_string(answer.prompt.size()) +
         ", \"new_tokens\": " + std::to_string(answer.tokens.size()) +
         ", \"load_seconds\": " + show_number(load_seconds) +
         ", \"time_to_first_token_ms\": " + show_number(first_ms) +
         ", \"tokens_per_second\": " + (rate > 0 ? show_number(rate) : "null") + "}";
}

std::string list_as_json(const std::vector<int32_t>& ids) {
  std::string text = "[";
  for (int32_t id : ids) text += (text.size() > 1 ? ", " : "") + std::to_string(id);
  return text + "]";
}
