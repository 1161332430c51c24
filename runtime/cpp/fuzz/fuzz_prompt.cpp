// Fuzzes prompts with the tokenizer.json in GLM_FUZZ_TOKENIZER. Valid UTF-8 must be decoded
// unchanged, if it contains no special token and no "▁", which SentencePiece writes for a space.
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "errors.hpp"
#include "tokenizer.hpp"
#include "utf8.hpp"

namespace {

std::string read_tokenizer() {
  const char* path = std::getenv("GLM_FUZZ_TOKENIZER");
  std::ifstream file(path == nullptr ? "" : path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const glm::Tokenizer tokenizer = glm::parse_tokenizer(read_tokenizer());
  std::string_view text(reinterpret_cast<const char*>(data), size);
  std::string repaired;
  glm::Utf8Stream stream;
  for (char byte : text) stream.add(std::string_view(&byte, 1), &repaired);
  stream.flush(&repaired);
  bool is_valid = glm::find_invalid_utf8(text) == std::string_view::npos;
  if (glm::find_invalid_utf8(repaired) != std::string::npos) std::abort();
  if (is_valid != (repaired == text)) std::abort();
  try {
    std::vector<int32_t> ids = tokenizer.encode(text);
    bool has_special = false;
    for (int32_t id : ids) has_special = has_special || tokenizer.bytes(id).empty();
    bool may_differ = has_special || text.find("\xE2\x96\x81") != std::string_view::npos;
    if (!is_valid) std::abort();
    if (!may_differ && tokenizer.decode(ids.data(), ids.size()) != text) std::abort();
  } catch (const glm::Error& error) {
    if (is_valid || error.status() != GLM_BAD_PROMPT) std::abort();
  }
  return 0;
}
