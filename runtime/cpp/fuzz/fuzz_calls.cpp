// Fuzzes the answers in which calls are found, in the dialect that the first byte selects, and the
// arguments that are written in the model's own form.
#include <cstdlib>

#include "errors.hpp"
#include "json_reader.hpp"
#include "python_literals.hpp"
#include "tool_calls.hpp"
#include "utf8.hpp"

namespace {

void require(bool is_true) {
  if (!is_true) std::abort();
}

void read(std::string_view answer, glm::CallForm form) {
  static const std::vector<glm::ToolText> tools = {
      {"get", "{}", "{\"parameters\": {\"properties\": {\"a\": {\"type\": \"string\"}}}}"},
      {"python", "", "", true},
      {"simple_browser", "", "", true},
      {"cogview", "", "", true}};
  glm::FoundCalls found = glm::find_calls(answer, tools, form);
  require(found.text_length <= answer.size());
  require(found.calls.empty() == (found.text_length == answer.size()));
  for (const glm::CallText& call : found.calls) {
    std::string_view object = call.arguments;
    require(glm::take_object(&object) && object.empty());
    glm::write_built_in_call(call);
  }
}

std::optional<std::string> read_written(const std::string& text) {
  std::string_view rest = text;
  require(glm::take_start(&rest, "```python\ntool_call("));
  std::optional<std::string> json = glm::take_python_arguments({}, "", "{", &rest);
  return rest == "\n```" ? json : std::nullopt;
}

// What is read is written so that the same is read again. Keys that are no names are not read, or
// without the blanks around them.
void write(const std::string& arguments) {
  std::string text = glm::write_python_call(arguments);
  if (text == arguments) return;
  std::optional<std::string> json = read_written(text);
  if (json) require(read_written(glm::write_python_call(*json)) == json);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    read(text, static_cast<glm::CallForm>(data[0] % 5));
    write(std::string(text));
  } catch (const glm::Error& error) {
    require(error.status() == GLM_BAD_PROMPT && glm::find_invalid_utf8(text) < text.size());
  }
  return 0;
}
