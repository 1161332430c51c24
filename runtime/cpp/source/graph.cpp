#include "graph.hpp"

#include <map>
#include <vector>

#include "cores.hpp"
#include "errors.hpp"
#include "paths.hpp"

namespace glm {
namespace {

constexpr int64_t kAny = -1;

struct TensorType {
  ONNXTensorElementDataType element;
  std::vector<int64_t> shape;  // kAny for an axis of any size
};

using Tensors = std::map<std::string, TensorType>;
using CountCall = decltype(OrtApi::SessionGetInputCount);
using NameCall = decltype(OrtApi::SessionGetInputName);
using TypeCall = decltype(OrtApi::SessionGetInputTypeInfo);

TensorType read_type(OrtTypeInfo* info) {
  TensorType type{ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED, {}};
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  check(ort().CastTypeInfoToTensorInfo(info, &tensor));
  if (tensor == nullptr) return type;
  size_t rank = 0;
  check(ort().GetTensorElementType(tensor, &type.element));
  check(ort().GetDimensionsCount(tensor, &rank));
  type.shape.resize(rank);
  check(ort().GetDimensions(tensor, type.shape.data(), rank));
  return type;
}

void collect(OrtSession* session, CountCall count_call, NameCall name_call, TypeCall type_call,
             Tensors* tensors) {
  OrtAllocator* allocator = nullptr;
  check(ort().GetAllocatorWithDefaultOptions(&allocator));
  size_t count = 0;
  check(count_call(session, &count));
  for (size_t i = 0; i < count; ++i) {
    char* name = nullptr;
    OrtTypeInfo* info = nullptr;
    check(name_call(session, i, allocator, &name));
    std::string copy = name;
    check(ort().AllocatorFree(allocator, name));
    check(type_call(session, i, &info));
    Owned<OrtTypeInfo> owned(info);
    (*tensors)[copy] = read_type(info);
  }
}

Tensors list_tensors(OrtSession* session) {
  const OrtApi& api = ort();
  Tensors tensors;
  collect(session, api.SessionGetInputCount, api.SessionGetInputName, api.SessionGetInputTypeInfo,
          &tensors);
  collect(session, api.SessionGetOverridableInitializerCount,
          api.SessionGetOverridableInitializerName, api.SessionGetOverridableInitializerTypeInfo,
          &tensors);
  collect(session, api.SessionGetOutputCount, api.SessionGetOutputName,
          api.SessionGetOutputTypeInfo, &tensors);
  return tensors;
}

bool fits(const TensorType& found, const TensorType& expected) {
  if (found.element != expected.element || found.shape.size() != expected.shape.size()) {
    return false;
  }
  for (size_t i = 0; i < found.shape.size(); ++i) {
    bool is_open = found.shape[i] < 0 || expected.shape[i] == kAny;
    if (!is_open && found.shape[i] != expected.shape[i]) return false;
  }
  return true;
}

Tensors list_expected(const ModelShape& model, ONNXTensorElementDataType cache_type,
                      ONNXTensorElementDataType logits_type) {
  auto int64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  Tensors expected = {{"input_ids", {int64, {kAny, kAny}}},
                      {"attention_mask", {int64, {kAny, kAny}}},
                      {"num_logits_to_keep", {int64, {1}}},
                      {"logits", {logits_type, {kAny, kAny, model.vocab_size}}}};
  TensorType cache{cache_type, {kAny, model.num_kv_heads, kAny, model.head_dim}};
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    for (bool is_value : {false, true}) {
      expected["past_key_values." + name_cache(layer, is_value)] = cache;
      expected["present." + name_cache(layer, is_value)] = cache;
    }
  }
  return expected;
}

void check_tensors(const Tensors& found, const Tensors& expected) {
  for (const auto& [name, type] : expected) {
    auto place = found.find(name);
    bool is_there = place != found.end();
    if (is_there && fits(place->second, type)) continue;
    std::string problem = is_there ? "has another type or shape than the manifest says"
                                   : "is missing, but the manifest requires it";
    throw Error(GLM_BAD_FOLDER, "model.onnx: the tensor " + name + " " + problem +
                                    "; export the checkpoint again.");
  }
}

// Checked first, so that a damaged number of layers does not create as many names.
void check_layers(const Tensors& found, int64_t num_layers) {
  constexpr int64_t kTensors = 4;  // for each layer: past and present, key and value
  if (num_layers <= static_cast<int64_t>(found.size()) / kTensors) return;
  throw Error(GLM_BAD_FOLDER, "model.onnx has " + std::to_string(found.size()) +
                                  " inputs and outputs, which is too few for num_layers = " +
                                  std::to_string(num_layers) +
                                  " in the manifest; export the checkpoint again.");
}

Owned<OrtSessionOptions> make_options(int threads) {
  OrtSessionOptions* options = nullptr;
  check(ort().CreateSessionOptions(&options));
  Owned<OrtSessionOptions> owned(options);
  check(ort().SetSessionLogSeverityLevel(options, ORT_LOGGING_LEVEL_FATAL));
  check(ort().SetIntraOpNumThreads(options, threads));
  // ONNX Runtime would keep a memory plan for every input shape, and each step has a new shape.
  check(ort().DisableMemPattern(options));
  return owned;
}

// A tensor in the memory of a table.
Owned<OrtValue> refer_to(const Table& table) {
  OrtMemoryInfo* memory = nullptr;
  check(ort().CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
  Owned<OrtMemoryInfo> owned(memory);
  bool is_half = !table.halves.empty();
  const void* data = is_half ? static_cast<const void*>(table.halves.data()) : table.floats.data();
  size_t bytes = table.halves.size() * sizeof(uint16_t) + table.floats.size() * sizeof(float);
  OrtValue* value = nullptr;
  check(ort().CreateTensorWithDataAsOrtValue(
      memory, const_cast<void*>(data), bytes, table.shape.data(), table.shape.size(),
      is_half ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
      &value));
  return Owned<OrtValue>(value);
}

Owned<OrtEnv> make_env() {
  OrtEnv* env = nullptr;
  check(ort().CreateEnv(ORT_LOGGING_LEVEL_FATAL, "glm", &env));
  Owned<OrtEnv> owned(env);
  check(ort().DisableTelemetryEvents(env));
  return owned;
}

}  // namespace

void write_packed_graph(const std::filesystem::path& path, const std::filesystem::path& output,
                        int threads) {
  Owned<OrtEnv> env = make_env();
  Owned<OrtSessionOptions> options = make_options(threads > 0 ? threads : count_usable_cores());
  check(ort().SetOptimizedModelFilePath(options.get(), output.c_str()));
  const std::string data_name = output.filename().u8string() + ".data";
  const std::pair<const char*, const char*> entries[] = {
      {"session.save_external_prepacked_constant_initializers", "1"},
      {"session.optimized_model_external_initializers_file_name", data_name.c_str()},
      {"session.optimized_model_external_initializers_min_size_in_bytes", "1024"}};
  for (auto [key, value] : entries) {
    check(ort().AddSessionConfigEntry(options.get(), key, value));
  }
  OrtSession* session = nullptr;
  check(ort().CreateSession(env.get(), path.c_str(), options.get(), &session), GLM_BAD_SETTING,
        "while writing the packed graph", "check the free disk space, or upgrade ONNX Runtime.");
  Owned<OrtSession> owned(session);
}

std::string name_cache(int64_t layer, bool is_value) {
  return std::to_string(layer) + (is_value ? ".value" : ".key");
}

Graph::Graph(const std::filesystem::path& path, bool is_packed, const Manifest& manifest,
             int threads)
    : env_(make_env()), threads_(threads > 0 ? threads : count_usable_cores()) {
  const ModelShape& model = manifest.model;
  Owned<OrtSessionOptions> options = make_options(threads_);
  for (const Table& table : manifest.tables) {
    tables_.push_back(refer_to(table));
    check(ort().AddInitializer(options.get(), table.name.c_str(), tables_.back().get()));
  }
  if (is_packed) check(ort().SetSessionGraphOptimizationLevel(options.get(), ORT_DISABLE_ALL));
  OrtSession* session = nullptr;
  check(ort().CreateSession(env_.get(), path.c_str(), options.get(), &session), GLM_BAD_FOLDER,
        "while opening model.onnx",
        "check the folder with Python's `glm-run doctor`, and upgrade ONNX Runtime.");
  session_.reset(session);
  bool is_half = model.cache_dtype == "float16", is_int8 = model.cache_dtype == "int8";
  logits_type_ =
      is_half ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  cache_type_ = is_int8 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 : logits_type_;
  Tensors found = list_tensors(session_.get());
  check_layers(found, model.num_layers);
  check_tensors(found, list_expected(model, cache_type_, logits_type_));
}

}  // namespace glm
