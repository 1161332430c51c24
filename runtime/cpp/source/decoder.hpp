// Runs the graph: tokens in, logits out. The keys of a layer, and its values, have one buffer,
// which is bound as past and as present, so that the cache is updated in place.
//
// Corresponds to decoding.py and kv_cache.py in glm_runtime. For one thread at a time, except
// `cancel`.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "graph.hpp"
#include "manifest.hpp"

namespace glm {

// Zeros, aligned to 64 bytes. Physical memory is used when it is written.
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

  int64_t length() const { return length_; }  // number of tokens in the cache
  void truncate(int64_t length);              // drops later tokens; costs nothing
  void reserve(int64_t length);               // allocates cache, at most up to the context length

  // Processes tokens in chunks. Returns the logits [vocab_size] after the last token, which are
  // valid until the next call. Throws GLM_BAD_PROMPT (too many tokens), GLM_CANCELLED,
  // GLM_RUN_FAILED or GLM_NO_MEMORY.
  const float* append(const int32_t* tokens, size_t count);

  void cancel();  // may be called by any thread; in effect until `uncancel`
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
  // Keys and values of each layer, [1, heads, capacity, head_dim].
  std::vector<ZeroBuffer> buffers_;
  std::vector<int64_t> ids_, ones_;
  int64_t num_logits_ = 1;
  std::vector<char> raw_logits_;  // as the graph returns them
  std::vector<float> logits_;     // converted to float32, if they are float16
};

// Size of one token and head in a cache buffer, in bytes.
size_t count_row_bytes(const ModelShape& model);

}  // namespace glm
