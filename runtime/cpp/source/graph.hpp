// A folder's graph, opened by ONNX Runtime. It packs weights for its kernels, into memory of its
// own that takes about as much as their file; a graph that is packed already is mapped.
#pragma once

#include <filesystem>
#include <string>

#include "manifest.hpp"
#include "onnxruntime.hpp"

namespace glm {

class Graph {
 public:
  // `is_packed`: by `write_packed_graph`. `threads`: 0 takes the physical cores. Throws
  // GLM_BAD_FOLDER: ONNX Runtime refuses the graph, or a tensor is not what the manifest promises.
  Graph(const std::filesystem::path& path, bool is_packed, const ModelShape& model, int threads);

  OrtSession* session() const { return session_.get(); }
  int threads() const { return threads_; }
  ONNXTensorElementDataType cache_type() const { return cache_type_; }
  ONNXTensorElementDataType logits_type() const { return logits_type_; }

 private:
  Owned<OrtEnv> env_;
  Owned<OrtSession> session_;
  int threads_;
  ONNXTensorElementDataType cache_type_, logits_type_;
};

// Writes a graph as this machine's kernels want it: optimized, its weights packed, in a file beside
// it. Throws GLM_BAD_SETTING: it cannot be written.
void write_packed_graph(const std::filesystem::path& path, const std::filesystem::path& output,
                        int threads);

// Names of a layer's cache, as the graph has them behind "past_key_values." and "present.".
std::string name_cache(int64_t layer, bool is_value);

}  // namespace glm
