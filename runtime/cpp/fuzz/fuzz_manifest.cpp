// Fuzzes the manifest, generation_config.json or chat_table.json, as the first byte says.
#include "chat_table.hpp"
#include "errors.hpp"
#include "manifest.hpp"

namespace {

glm::Chat make_chat() {
  glm::ChatMessage call{"assistant", "b", {{"f", "{\"a\": [1, \"c\"]}"}, {"python", "{}"}}};
  glm::ChatMessage result{"tool", "d", {}, "m"};
  return {{{"user", "a"}, call, result}, {{"f", "{}", "{}"}, {"python", "{}", "", true}}, 1, false};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    if (data[0] % 3 == 0) glm::parse_manifest(text);
    if (data[0] % 3 == 1) glm::parse_generation_config(text);
    if (data[0] % 3 == 2) glm::ChatTable(text).render(make_chat());
  } catch (const glm::Error&) {
  }
  return 0;
}
