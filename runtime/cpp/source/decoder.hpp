// Tokens in, logits out; keys and values stay in one buffer a layer, bound as past and as present.
//
// As glm_runtime's decoding.py and kv_cache.py. Belongs to one thread, but for `cancel`.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "graph.hpp"
#include "manifest.hpp"

namespace glm {

// Zeros on a boundary of 64 bytes; takes no memory until it is written.
class ZeroBuffer {
 public:
  explicit ZeroBuffer(size_t size);  // throws std::bad_alloc
  char* data() const { return data_; }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> block_;
  char* data_;
};

class Decoder {
 public:
  Decoder(const Graph& graph, const ModelShape& model);

  int64_t length() const { return length_; }  // tokens whose keys and values are held
  void truncate(int64_t length);              // forgets the others; costs nothing
  void reserve(int64_t length);               // makes room, as far as the context goes

  // Reads tokens, in chunks; the logits [vocab_size] after the last, valid until the next call.
  // Throws GLM_BAD_PROMPT: too many; GLM_CANCELLED; GLM_RUN_FAILED; GLM_NO_MEMORY.
  const float* append(const int32_t* tokens, size_t count);

  void cancel();    // from any thread; until `uncancel`
  void uncancel();

 private:
  void run(const int32_t* tokens, size_t count);
  void grow(int64_t capacity);
  ZeroBuffer copy_grown(const ZeroBuffer* old, int64_t capacity) const;
  void bind_cache(const std::vector<ZeroBuffer>& buffers, int64_t capacity);
  void bind_input(const char* name, void* data, std::vector<int64_t> shape);
  void bind_output(const char* name, OrtValue* value);
  Owned<OrtValue> make_value(void* data, size_t size, const std::vector<int64_t>& shape,
                             ONNXTensorElementDataType type) const;
  const float* read_logits();

  const Graph& graph_;
  const ModelShape& model_;
  Owned<OrtMemoryInfo> memory_;
  Owned<OrtRunOptions> run_options_;
  Owned<OrtIoBinding> binding_;
  std::atomic<bool> is_cancelled_{false};
  int64_t length_ = 0, capacity_ = 0;
  std::vector<ZeroBuffer> buffers_;  // key and value of each layer, [1, heads, capacity, head_dim]
  std::vector<int64_t> ids_, ones_;
  int64_t num_logits_ = 1;
  std::vector<char> raw_logits_;  // as the graph gives them
  std::vector<float> logits_;     // as float32, where they are float16
};

// What a token of one head takes of a buffer, in bytes.
size_t measure_row(const ModelShape& model);

}  // namespace glm
