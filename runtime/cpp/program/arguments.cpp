#include "arguments.hpp"

#include <charconv>
#include <functional>
#include <map>
#include <string_view>

const char kHelp[] =
    "Usage: glm-run COMMAND DIR [OPTIONS]\n"
    "\n"
    "Runs a folder that glm-export wrote.\n"
    "\n"
    "  glm-run generate DIR --prompt 'Recite John 3:16.'          one answer, streamed\n"
    "  glm-run generate DIR --prompt 'In the' --raw --json        as it is; one JSON object\n"
    "  glm-run chat DIR                                           a conversation, line by line\n"
    "  glm-run tokenize DIR < lines.txt                           ids of each line\n"
    "\n"
    "  --prompt TEXT              what to answer; - reads stdin\n"
    "  --system TEXT              a system message before it\n"
    "  --raw                      the prompt as it is, without the chat table\n"
    "  --think | --no-think       for templates that know it\n"
    "  --greedy                   always the likeliest token\n"
    "  --temperature, --top-k, --top-p, --min-p, --repetition-penalty, --presence-penalty,\n"
    "  --frequency-penalty NUMBER how to choose instead of the folder's settings\n"
    "  --seed N                   one seed gives one answer, the same as in Python\n"
    "  --max-new-tokens N         the longest answer\n"
    "  --threads N                default: the physical cores\n"
    "  --verify                   compare every byte with the manifest's hashes first\n"
    "  --json                     one JSON object on stdout\n";

namespace {

using Take = std::function<void(const std::string&)>;

template <class Number>
Take number(const std::string& name, std::optional<Number>* target) {
  return [name, target](const std::string& text) {
    Number value{};
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) {
      throw UsageError(name + " is '" + text + "' where a number in its range is expected.");
    }
    *target = value;
  };
}

Take text(std::optional<std::string>* target) {
  return [target](const std::string& value) { *target = value; };
}

std::map<std::string, Take> list_options(Arguments* a) {
  std::map<std::string, Take> options = {{"--prompt", text(&a->prompt)},
                                         {"--system", text(&a->system)},
                                         {"--seed", number("--seed", &a->seed)}};
  const std::map<std::string, std::optional<double>*> numbers = {
      {"--temperature", &a->temperature},
      {"--top-p", &a->top_p},
      {"--min-p", &a->min_p},
      {"--repetition-penalty", &a->repetition_penalty},
      {"--presence-penalty", &a->presence_penalty},
      {"--frequency-penalty", &a->frequency_penalty}};
  for (const auto& [name, target] : numbers) options[name] = number(name, target);
  const std::map<std::string, std::optional<int64_t>*> counts = {
      {"--top-k", &a->top_k}, {"--max-new-tokens", &a->max_new_tokens}, {"--threads", &a->threads}};
  for (const auto& [name, target] : counts) options[name] = number(name, target);
  return options;
}

std::map<std::string, std::function<void()>> list_flags(Arguments* a) {
  return {{"--raw", [a] { a->is_raw = true; }},       {"--greedy", [a] { a->is_greedy = true; }},
          {"--json", [a] { a->is_json = true; }},     {"--verify", [a] { a->is_verified = true; }},
          {"--help", [a] { a->is_help = true; }},     {"--think", [a] { a->thinking = 1; }},
          {"--no-think", [a] { a->thinking = 0; }}};
}

void take_place(Arguments* arguments, const std::string& word) {
  if (arguments->command.empty()) {
    arguments->command = word;
  } else if (arguments->folder.empty()) {
    arguments->folder = word;
  } else {
    throw UsageError("'" + word + "' came after the folder where an option is expected.");
  }
}

void check(const Arguments& a) {
  const std::string& command = a.command;
  if (command != "generate" && command != "chat" && command != "tokenize") {
    throw UsageError("the command is '" + command + "' where generate, chat or tokenize is expected.");
  }
  if (a.folder.empty()) throw UsageError("no folder came where that of glm-export is expected.");
  if (command == "generate" && !a.prompt) throw UsageError("--prompt is missing.");
  if (a.is_raw && (a.system || command == "chat")) {
    throw UsageError("--raw came with a conversation where one or the other is expected.");
  }
  bool is_sampled = a.temperature || a.top_k || a.top_p || a.min_p || a.seed;
  if (a.is_greedy && is_sampled) {
    throw UsageError("--greedy came with an option for sampling; leave one out.");
  }
  if (a.max_new_tokens && (*a.max_new_tokens < 1 || *a.max_new_tokens > INT32_MAX)) {
    throw UsageError("--max-new-tokens is out of range where 1 or more is expected.");
  }
  if (a.threads && (*a.threads < 1 || *a.threads > 1024)) {
    throw UsageError("--threads is out of range where 1 to 1024 is expected.");
  }
  if (a.top_k && (*a.top_k < 0 || *a.top_k > INT32_MAX)) {
    throw UsageError("--top-k is out of range where 0 or more is expected.");
  }
}

}  // namespace

Arguments parse_arguments(const std::vector<std::string>& words) {
  Arguments arguments;
  auto options = list_options(&arguments);
  auto flags = list_flags(&arguments);
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (auto flag = flags.find(word); flag != flags.end()) {
      flag->second();
    } else if (auto option = options.find(word); option != options.end()) {
      if (++i == words.size()) throw UsageError(word + " came last where its value is expected.");
      option->second(words[i]);
    } else if (word.size() > 1 && word[0] == '-') {
      throw UsageError(word + " is unknown here; Python's glm-run may have it.");
    } else {
      take_place(&arguments, word);
    }
  }
  if (!arguments.is_help) check(arguments);
  return arguments;
}

glm_settings merge_settings(const Arguments& a, glm_settings s) {
  // A sampling option on top of a greedy default turns sampling on.
  if (s.temperature == 0 && (a.top_k || a.top_p || a.min_p)) s.temperature = 1.0;
  s.temperature = a.is_greedy ? 0.0 : a.temperature.value_or(s.temperature);
  if (a.top_k) s.top_k = static_cast<int32_t>(*a.top_k);
  s.top_p = a.top_p.value_or(s.top_p);
  s.min_p = a.min_p.value_or(s.min_p);
  s.repetition_penalty = a.repetition_penalty.value_or(s.repetition_penalty);
  s.presence_penalty = a.presence_penalty.value_or(s.presence_penalty);
  s.frequency_penalty = a.frequency_penalty.value_or(s.frequency_penalty);
  s.has_seed = a.seed.has_value();
  s.seed = a.seed.value_or(0);
  s.max_new_tokens = static_cast<int32_t>(a.max_new_tokens.value_or(0));
  return s;
}
