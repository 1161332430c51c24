// Fuzzes tokenizer.json. If it is valid, a few texts are encoded and decoded.
#include "errors.hpp"
#include "tokenizer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    glm::Tokenizer tokenizer =
        glm::parse_tokenizer(std::string_view(reinterpret_cast<const char*>(data), size));
    for (const char* text :
         {"", "In the beginning 123", "<|user|>\n床前 'll", "\xF0\x9F\x99\x82"}) {
      std::vector<int32_t> ids = tokenizer.encode(text);
      tokenizer.decode(ids.data(), ids.size());
    }
  } catch (const glm::Error&) {
  }
  return 0;
}
