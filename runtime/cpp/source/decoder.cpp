#include "decoder.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

#include "errors.hpp"

namespace glm {
namespace {

constexpr size_t kChunk = 128;    // chunked prefill: needs less memory and is not slower
constexpr int64_t kGrowth = 256;  // a cache buffer grows by a multiple of so many tokens
constexpr size_t kAlignment = 64;

size_t count_element_bytes(const ModelShape& model) {
  if (model.cache_dtype == "int8") return 1;
  return model.cache_dtype == "float16" ? 2 : 4;
}

size_t multiply(size_t left, size_t right) {
  if (left != 0 && right > SIZE_MAX / left) throw std::bad_alloc();
  return left * right;
}

// Converts float16 to float32 without a branch, so that compilers use vector instructions.
float widen(uint16_t half) {
  uint32_t magnitude = half & 0x7FFFu;
  uint32_t infinity = magnitude >= 0x7C00u ? 0x7F800000u : 0;  // or NaN, if the fraction is not 0
  uint32_t shifted = magnitude << 13, sign = (half & 0x8000u) << 16, bits = 0;
  float value = 0;
  std::memcpy(&value, &shifted, sizeof value);
  value *= 0x1p112f;  // from an exponent bias of 15 to 127
  std::memcpy(&bits, &value, sizeof bits);
  bits |= infinity | sign;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

size_t count_row_bytes(const ModelShape& model) {
  return multiply(static_cast<size_t>(model.head_dim), count_element_bytes(model));
}

ZeroBuffer::ZeroBuffer(size_t size) : block_(std::calloc(1, size + kAlignment)) {
  if (block_ == nullptr) throw std::bad_alloc();
  auto address = reinterpret_cast<uintptr_t>(block_.get());
  size_t skipped = (kAlignment - address % kAlignment) % kAlignment;
  data_ = static_cast<char*>(block_.get()) + skipped;
}

Decoder::Decoder(const Graph& graph, const ModelShape& model) : graph_(graph), model_(model) {
  OrtMemoryInfo* memory = nullptr;
  check(ort().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  memory_.reset(memory);
  OrtRunOptions* options = nullptr;
  check(ort().CreateRunOptions(&options));
  run_options_.reset(options);
  OrtIoBinding* binding = nullptr;
  check(ort().CreateIoBinding(graph.session(), &binding));
  binding_.reset(binding);
  bind_input("num_logits_to_keep", &num_logits_, {1});
  auto vocab_size = static_cast<size_t>(model.vocab_size);
  bool is_half = graph.logits_type() == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  raw_logits_.resize(vocab_size * (is_half ? sizeof(uint16_t) : sizeof(float)));
  if (is_half) logits_.resize(vocab_size);
  Owned<OrtValue> logits = make_value(raw_logits_.data(), raw_logits_.size(),
                                      {1, 1, model.vocab_size}, graph.logits_type());
  bind_output("logits", logits.get());
}

void Decoder::truncate(int64_t length) { length_ = std::min(length, length_); }

void Decoder::reserve(int64_t length) {
  length = std::min(length, model_.context_length);
  if (length <= capacity_) return;
  // A quarter more than before: in all, a token is copied about four times.
  int64_t wanted = std::max(length, capacity_ + capacity_ / 4);
  grow(std::min((wanted + kGrowth - 1) / kGrowth * kGrowth, model_.context_length));
}

const float* Decoder::append(const int32_t* tokens, size_t count) {
  int64_t total = length_ + static_cast<int64_t>(count);
  if (total > model_.context_length) {
    throw Error(GLM_BAD_PROMPT, std::to_string(total) +
                                    " tokens do not fit into the model's context of " +
                                    std::to_string(model_.context_length) +
                                    "; shorten the prompt, or start a new conversation.");
  }
  reserve(total);
  for (size_t start = 0; start < count; start += kChunk) {
    run(tokens + start, std::min(kChunk, count - start));
  }
  return read_logits();
}

void Decoder::run(const int32_t* tokens, size_t count) {
  if (is_cancelled_) throw Error(GLM_CANCELLED, "the answer was cancelled.");
  int64_t total = length_ + static_cast<int64_t>(count);
  ids_.assign(tokens, tokens + count);
  bind_input("input_ids", ids_.data(), {1, static_cast<int64_t>(count)});
  bind_input("attention_mask", ones_.data(), {1, total});
  OrtStatus* status = ort().RunWithBinding(graph_.session(), run_options_.get(), binding_.get());
  if (status != nullptr && is_cancelled_) {
    Owned<OrtStatus> owned(status);
    throw Error(GLM_CANCELLED, "the answer was cancelled.");
  }
  check(status, GLM_RUN_FAILED, "at token " + std::to_string(total),
        "check the folder and the free memory with Python's `glm-run doctor`.");
  length_ = total;
}

// Allocates all buffers before it replaces one, so that the old ones remain if memory runs out.
void Decoder::grow(int64_t capacity) {
  std::vector<ZeroBuffer> buffers;
  auto count = static_cast<size_t>(2 * model_.num_layers);
  buffers.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    buffers.push_back(copy_grown(buffers_.empty() ? nullptr : &buffers_[i], capacity));
  }
  std::vector<int64_t> ones(static_cast<size_t>(capacity), 1);
  int64_t length = length_;
  length_ = capacity_ = 0;  // if binding fails, the cache is empty
  bind_cache(buffers, capacity);
  buffers_.swap(buffers);
  ones_.swap(ones);
  capacity_ = capacity;
  length_ = length;
}

ZeroBuffer Decoder::copy_grown(const ZeroBuffer* old, int64_t capacity) const {
  size_t row = count_row_bytes(model_), heads = static_cast<size_t>(model_.num_kv_heads);
  // Zeros, because a NaN in a masked position would spoil the product.
  ZeroBuffer buffer(multiply(multiply(row, heads), static_cast<size_t>(capacity)));
  if (old == nullptr) return buffer;
  for (size_t head = 0; head < heads; ++head) {
    std::memcpy(buffer.data() + head * row * capacity, old->data() + head * row * capacity_,
                row * length_);
  }
  return buffer;
}

void Decoder::bind_cache(const std::vector<ZeroBuffer>& buffers, int64_t capacity) {
  std::vector<int64_t> shape = {1, model_.num_kv_heads, capacity, model_.head_dim};
  size_t size = count_row_bytes(model_) * model_.num_kv_heads * capacity;
  for (size_t i = 0; i < buffers.size(); ++i) {
    std::string name = name_cache(static_cast<int64_t>(i / 2), i % 2 == 1);
    Owned<OrtValue> value = make_value(buffers[i].data(), size, shape, graph_.cache_type());
    check(ort().BindInput(binding_.get(), ("past_key_values." + name).c_str(), value.get()));
    bind_output(("present." + name).c_str(), value.get());
  }
}

void Decoder::bind_input(const char* name, void* data, std::vector<int64_t> shape) {
  size_t count = 1;
  for (int64_t size : shape) count *= static_cast<size_t>(size);
  Owned<OrtValue> value =
      make_value(data, count * sizeof(int64_t), shape, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64);
  check(ort().BindInput(binding_.get(), name, value.get()));
}

void Decoder::bind_output(const char* name, OrtValue* value) {
  check(ort().BindOutput(binding_.get(), name, value));
}

Owned<OrtValue> Decoder::make_value(void* data, size_t size, const std::vector<int64_t>& shape,
                                    ONNXTensorElementDataType type) const {
  OrtValue* value = nullptr;
  check(ort().CreateTensorWithDataAsOrtValue(memory_.get(), data, size, shape.data(), shape.size(),
                                             type, &value));
  return Owned<OrtValue>(value);
}

const float* Decoder::read_logits() {
  if (logits_.empty()) return reinterpret_cast<const float*>(raw_logits_.data());
  for (size_t i = 0; i < logits_.size(); ++i) {
    uint16_t half = 0;
    std::memcpy(&half, &raw_logits_[i * sizeof half], sizeof half);
    logits_[i] = widen(half);
  }
  return logits_.data();
}

void Decoder::cancel() {
  is_cancelled_ = true;
  Owned<OrtStatus> ignored(ort().RunOptionsSetTerminate(run_options_.get()));
}

void Decoder::uncancel() {
  is_cancelled_ = false;
  check(ort().RunOptionsUnsetTerminate(run_options_.get()));
}

}  // namespace glm
