// Parses and checks the command line.
#include "arguments.hpp"

#include <charconv>
#include <functional>
#include <map>
#include <string_view>

namespace {

using Setter = std::function<void(const std::string&)>;

template <class Number>
Number read_number(const std::string& name, const std::string& text) {
  Number value{};
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  throw UsageError(name + " is '" + text + "' where a number in its range is expected.");
}

template <class Number>
Setter number(const std::string& name, std::optional<Number>* target) {
  return [name, target](const std::string& text) { *target = read_number<Number>(name, text); };
}

glm_bias read_bias(const std::string& text) {
  size_t mark = text.find('=');
  if (mark == std::string::npos) {
    throw UsageError("--logit-bias is '" + text + "' where ID=NUMBER is expected.");
  }
  return {read_number<int32_t>("--logit-bias", text.substr(0, mark)),
          read_number<float>("--logit-bias", text.substr(mark + 1))};
}

Setter text(std::optional<std::string>* target) {
  return [target](const std::string& value) { *target = value; };
}

std::map<std::string, Setter> list_options(Arguments* a) {
  std::map<std::string, Setter> options = {
      {"--prompt", text(&a->prompt)}, {"--prompt-file", text(&a->prompt_file)},
      {"--system", text(&a->system)}, {"--prefill", text(&a->prefill)},
      {"--tools", text(&a->tools_file)},
      {"--prepared", text(&a->prepared)},
      {"--output", text(&a->output)}, {"--rope-scaling", text(&a->rope_scaling)},
      {"--seed", number("--seed", &a->seed)}};
  const std::map<std::string, std::optional<double>*> numbers = {
      {"--temperature", &a->temperature},
      {"--top-p", &a->top_p},
      {"--min-p", &a->min_p},
      {"--repetition-penalty", &a->repetition_penalty},
      {"--presence-penalty", &a->presence_penalty},
      {"--frequency-penalty", &a->frequency_penalty},
      {"--dry-multiplier", &a->dry_multiplier},
      {"--dry-base", &a->dry_base},
      {"--factor", &a->factor}};
  for (const auto& [name, target] : numbers) options[name] = number(name, target);
  const std::map<std::string, std::optional<int64_t>*> counts = {
      {"--top-k", &a->top_k},
      {"--max-new-tokens", &a->max_new_tokens},
      {"--threads", &a->threads},
      {"--max-thinking-tokens", &a->max_thinking_tokens},
      {"--dry-allowed-length", &a->dry_allowed_length},
      {"--original-context", &a->original_context},
      {"--prompt-tokens", &a->prompt_tokens},
      {"--new-tokens", &a->new_tokens},
      {"--rounds", &a->rounds}};
  for (const auto& [name, target] : counts) options[name] = number(name, target);
  options["--stop"] = [a](const std::string& value) { a->stop.push_back(value.c_str()); };
  options["--logit-bias"] = [a](const std::string& value) {
    a->biases.push_back(read_bias(value));
  };
  return options;
}

std::map<std::string, std::function<void()>> list_flags(Arguments* a) {
  return {{"--raw", [a] { a->is_raw = true; }},
          {"--greedy", [a] { a->is_greedy = true; }},
          {"--json", [a] { a->is_json = true; }},
          {"--verify", [a] { a->is_verified = true; }},
          {"-h", [a] { a->is_help = true; }},
          {"--help", [a] { a->is_help = true; }},
          {"--version", [a] { a->is_version = true; }},
          {"--thinking", [a] { a->thinking = 1; }},
          {"--no-thinking", [a] { a->thinking = 0; }},
          {"--sanitize", [a] { a->is_sanitized = true; }},
          {"--no-sanitize", [a] { a->is_sanitized = false; }},
          {"--ignore-eos", [a] { a->ignores_eos = true; }},
          {"--huge-pages", [a] { a->huge_pages = true; }},
          {"--no-huge-pages", [a] { a->huge_pages = false; }}};
}

void set_positional(Arguments* arguments, const std::string& word) {
  if (arguments->command.empty()) {
    arguments->command = word;
  } else if (arguments->folder.empty()) {
    arguments->folder = word;
  } else {
    throw UsageError("'" + word + "' follows the folder, where only options are expected.");
  }
}

void check_range(const std::optional<int64_t>& value, const char* name, int64_t least,
                 int64_t most) {
  if (!value || (*value >= least && *value <= most)) return;
  throw UsageError(std::string(name) + " is " + std::to_string(*value) + " where " +
                   std::to_string(least) + " to " + std::to_string(most) + " is expected.");
}

void check_ranges(const Arguments& a) {
  check_range(a.max_new_tokens, "--max-new-tokens", 1, INT32_MAX);
  check_range(a.threads, "--threads", 1, 1024);
  check_range(a.top_k, "--top-k", 0, INT32_MAX);
  check_range(a.max_thinking_tokens, "--max-thinking-tokens", 0, INT32_MAX);
  check_range(a.dry_allowed_length, "--dry-allowed-length", 1, INT32_MAX);
  check_range(a.original_context, "--original-context", 1, INT32_MAX);
  check_range(a.prompt_tokens, "--prompt-tokens", 1, INT32_MAX);
  check_range(a.new_tokens, "--new-tokens", 1, INT32_MAX - 1);
  check_range(a.rounds, "--rounds", 1, INT32_MAX);
}

void check_rope(const Arguments& a) {
  bool is_yarn = a.rope_scaling == "yarn";
  if (a.rope_scaling && !is_yarn && a.rope_scaling != "none") {
    throw UsageError("--rope-scaling is '" + *a.rope_scaling +
                     "' where yarn or none is expected.");
  }
  if (!is_yarn && (a.factor || a.original_context)) {
    throw UsageError(
        "--factor and --original-context have no effect without --rope-scaling yarn; add it, or "
        "leave them out.");
  }
  if (is_yarn && (!a.factor || !(*a.factor > 1))) {
    throw UsageError("--rope-scaling yarn needs --factor with a number above 1, for example 4.");
  }
}

void check(const Arguments& a) {
  const std::string& command = a.command;
  bool is_known = command == "generate" || command == "chat" || command == "tokenize" ||
                  command == "bench" || command == "prepare";
  if (!is_known) {
    throw UsageError("the command is '" + command +
                     "' where generate, chat, tokenize, bench or prepare is expected.");
  }
  if (a.folder.empty())
    throw UsageError("the folder is missing; give the folder that glm-export wrote.");
  if (command == "generate" && !a.prompt && !a.prompt_file) {
    throw UsageError("--prompt is missing; give --prompt or --prompt-file.");
  }
  if (command == "prepare" && !a.output) {
    throw UsageError("--output is missing; give the name of a new folder.");
  }
  if (a.prompt && a.prompt_file) {
    throw UsageError("--prompt and --prompt-file cannot be used together; leave one out.");
  }
  if (a.tools_file && (a.is_raw || !a.is_json || command != "generate")) {
    throw UsageError("--tools needs generate with --json and without --raw; add or leave out.");
  }
  if (a.prefill && (a.is_raw || command != "generate")) {
    throw UsageError("--prefill can be used with generate only, without --raw; leave it out.");
  }
  bool is_for_chats = a.system || a.max_thinking_tokens || a.thinking != -1;
  if (a.is_raw && (is_for_chats || command == "chat")) {
    throw UsageError(
        "--raw cannot be used with chat, --system, --thinking or --max-thinking-tokens; leave one "
        "out.");
  }
  bool is_sampled = a.temperature || a.top_k || a.top_p || a.min_p || a.seed;
  if (a.is_greedy && is_sampled) {
    throw UsageError("--greedy cannot be used with a sampling option; leave one out.");
  }
  check_ranges(a);
  check_rope(a);
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
      if (++i == words.size()) throw UsageError(word + " needs a value.");
      option->second(words[i]);
    } else if (word.size() > 1 && word[0] == '-') {
      throw UsageError(word + " is unknown; Python's glm-run may support it.");
    } else {
      set_positional(&arguments, word);
    }
  }
  if (!arguments.is_help && !arguments.is_version) check(arguments);
  return arguments;
}

glm_settings merge_settings(const Arguments& a, glm_settings s) {
  // A sampling option turns sampling on if the folder recommends greedy decoding.
  if (s.temperature == 0 && (a.top_k || a.top_p || a.min_p)) s.temperature = 1.0;
  s.temperature = a.is_greedy ? 0.0 : a.temperature.value_or(s.temperature);
  if (a.top_k) s.top_k = static_cast<int32_t>(*a.top_k);
  s.top_p = a.top_p.value_or(s.top_p);
  s.min_p = a.min_p.value_or(s.min_p);
  s.repetition_penalty = a.repetition_penalty.value_or(s.repetition_penalty);
  s.presence_penalty = a.presence_penalty.value_or(s.presence_penalty);
  s.frequency_penalty = a.frequency_penalty.value_or(s.frequency_penalty);
  s.dry_multiplier = a.dry_multiplier.value_or(s.dry_multiplier);
  s.dry_base = a.dry_base.value_or(s.dry_base);
  if (a.dry_allowed_length) s.dry_allowed_length = static_cast<int32_t>(*a.dry_allowed_length);
  s.has_seed = a.seed.has_value();
  s.seed = a.seed.value_or(0);
  if (a.max_new_tokens) s.max_new_tokens = static_cast<int32_t>(*a.max_new_tokens);
  s.ignores_eos = a.ignores_eos;
  s.biases = a.biases.data();
  s.bias_count = a.biases.size();
  s.stop = a.stop.data();
  s.stop_count = a.stop.size();
  s.parts_thinking = !a.is_raw;
  s.has_tools = a.tools_file ? 2 : 0;
  s.limits_thinking = a.max_thinking_tokens.has_value();
  s.max_thinking_tokens = static_cast<int32_t>(a.max_thinking_tokens.value_or(0));
  return s;
}
