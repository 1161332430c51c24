// The program glm-run. It uses the library through glm.h only.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>

#include "answering.hpp"
#include "arguments.hpp"
#include "bench.hpp"
#include "console.hpp"
#include "model.hpp"

namespace {

// A loaded folder, a session, and the settings of the command line.
struct Opened {
  explicit Opened(const Arguments& arguments)
      : start(Clock::now()),
        model(load(arguments)),
        load_seconds(std::chrono::duration<double>(Clock::now() - start).count()),
        session(new_session(model)),
        settings(merge_settings(arguments, read_defaults(model))) {}

  Clock::time_point start;
  Model model;
  double load_seconds;
  Session session;
  glm_settings settings;
};

// Removes one line end, which a shell or an editor adds.
std::string drop_line_end(std::string text) {
  if (!text.empty() && text.back() == '\n') text.pop_back();
  if (!text.empty() && text.back() == '\r') text.pop_back();  // on Windows
  return text;
}

std::string read_file(const char* option, const std::string& path) {
  std::ifstream file(std::filesystem::u8path(path), std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file) return text;
  throw UsageError(std::string(option) + " names " + path +
                   ", which cannot be read; check the path and its permissions.");
}

std::string read_prompt(const Arguments& arguments) {
  if (arguments.prompt == "-") return drop_line_end(read_all());
  if (arguments.prompt) return *arguments.prompt;
  return drop_line_end(read_file("--prompt-file", *arguments.prompt_file));
}

Messages start_messages(const Arguments& arguments) {
  if (!arguments.system) return {};
  return {{"system", *arguments.system}};
}

// Says if the chat template has no switch for reasoning.
void note_thinking(const Arguments& arguments, const Model& model, const Messages& messages) {
  if (arguments.thinking < 0 || reads_thinking(model, messages, arguments.thinking)) return;
  std::fprintf(stderr, "(the chat template has no switch for reasoning, so --%s changes nothing)\n",
               arguments.thinking > 0 ? "thinking" : "no-thinking");
}

std::vector<int32_t> encode_prompt(const Arguments& arguments, const Model& model,
                                   const std::string& prompt) {
  if (arguments.is_raw) return tokenize(model, prompt);
  Messages messages = start_messages(arguments);
  messages.emplace_back("user", prompt);
  note_thinking(arguments, model, messages);
  if (arguments.prefill) messages.emplace_back("assistant", *arguments.prefill);
  return encode_chat(model, messages, arguments, false);
}

int generate(Arguments arguments) {
  std::string prompt = read_prompt(arguments);
  if (arguments.tools_file) arguments.tools = read_file("--tools", *arguments.tools_file);
  if (prompt.empty()) {
    throw std::runtime_error("the prompt is empty; give a text of at least one token.");
  }
  Opened opened(arguments);
  std::vector<int32_t> ids = encode_prompt(arguments, opened.model, prompt);
  Answer answer = answer_prompt(opened.session, std::move(ids), opened.settings,
                                arguments.is_json ? Show::kNothing : Show::kText);
  if (answer.is_cancelled) throw Failure(GLM_CANCELLED);
  if (arguments.is_json) {
    const glm_model* model = opened.model.get();
    std::string json = describe_as_json(model, answer, opened.load_seconds, arguments.tools);
    std::printf("%s\n", json.c_str());
  } else {
    std::fprintf(stderr, "%zu tokens, %.1f tokens/s\n", answer.tokens.size(),
                 answer.measure_rate());
  }
  return 0;
}

// Answers the last message and adds the answer, also if Ctrl-C ended it early. Returns false if the
// message was refused; then it is removed.
bool answer_last(const Arguments& arguments, const Opened& opened, Messages* messages) {
  try {
    std::vector<int32_t> ids = encode_chat(opened.model, *messages, arguments, true);
    Answer answer = answer_prompt(opened.session, std::move(ids), opened.settings, Show::kText);
    messages->emplace_back("assistant", answer.text);
    if (!is_terminal(stderr)) return true;
    std::fprintf(stderr, "(%zu tokens, %.1f tokens/s)\n", answer.tokens.size(),
                 answer.measure_rate());
    return true;
  } catch (const Failure& failure) {
    if (failure.status != GLM_BAD_PROMPT) throw;
    std::fprintf(stderr, "%s\n", failure.what());
    messages->pop_back();
    return false;
  }
}

// Replaces the system message, or shows it if the text is empty.
void change_system(const std::string& text, Messages* messages) {
  bool has_one = !messages->empty() && messages->front().first == "system";
  if (text.empty()) {
    std::string shown = has_one ? messages->front().second : "There is no system message.";
    std::fprintf(stderr, "%s\n", shown.c_str());
    return;
  }
  if (has_one) messages->erase(messages->begin());
  messages->insert(messages->begin(), {"system", text});
}

// Drops the last answer, so that the message before it can be answered again.
bool drop_answer(Messages* messages) {
  if (!messages->empty() && messages->back().first == "assistant") messages->pop_back();
  if (!messages->empty() && messages->back().first == "user") return true;
  std::fputs("there is no message to answer again; ask something first.\n", stderr);
  return false;
}

int chat(const Arguments& arguments) {
  constexpr char kSystem[] = "/system";
  Opened opened(arguments);
  Messages messages = start_messages(arguments);
  note_thinking(arguments, opened.model, {{"user", "?"}});
  bool is_typed = is_terminal(stdin), is_refused = false;
  bool is_move_due = !arguments.huge_pages;
  auto answer = [&] {
    is_refused = !answer_last(arguments, opened, &messages) || is_refused;
    // It takes seconds, in which the user reads and types.
    if (is_move_due) std::thread(glm_use_huge_pages).detach();
    is_move_due = false;
  };
  for (std::string line; std::fputs("> ", stderr), read_line(&line);) {
    if (line == "/exit") break;
    if (line == "/help") {
      std::fputs(kChatHelp, stderr);
    } else if (line == "/reset") {
      messages.resize(!messages.empty() && messages.front().first == "system" ? 1 : 0);
    } else if (line == kSystem || line.rfind(std::string(kSystem) + ' ', 0) == 0) {
      size_t begin = line.find_first_not_of(' ', sizeof kSystem - 1);
      change_system(begin == std::string::npos ? "" : line.substr(begin), &messages);
    } else if (line == "/retry") {
      if (drop_answer(&messages)) answer();
    } else if (!line.empty() && line[0] == '/') {
      std::fprintf(stderr, "there is no command %s; /help lists the commands.\n", line.c_str());
    } else if (!line.empty()) {
      messages.emplace_back("user", line);
      answer();
    }
  }
  return is_refused && !is_typed ? 1 : 0;  // a script learns of it, a user has seen it
}

int tokenize_lines(const Arguments& arguments) {
  Model model = load(arguments);
  for (std::string line; read_line(&line);) {
    std::printf("%s\n", list_as_json(tokenize(model, line)).c_str());
  }
  return 0;
}

int run(const Arguments& arguments) {
  if (arguments.is_help) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  if (arguments.is_version) {
    std::printf("glm-run, version %s\n", glm_version());
    return 0;
  }
  watch_interrupts(interrupt);
  if (arguments.command == "generate") return generate(arguments);
  if (arguments.command == "chat") return chat(arguments);
  if (arguments.command == "tokenize") return tokenize_lines(arguments);
  if (arguments.command == "bench") run_benchmark(arguments);
  if (arguments.command == "prepare") prepare(arguments);
  return 0;
}

int explain(int count, char** values) {
  try {
    std::vector<std::string> words = list_arguments(count, values);
    int code = run(parse_arguments(words));
    flush_output();
    return code;
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
  turn_telemetry_off();
  int code = explain(count, values);
  std::fflush(nullptr);
  leave(code);
}
