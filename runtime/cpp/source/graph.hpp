// A folder's graph, opened by ONNX Runtime; weights are mapped from their file.
#pragma once

#include <string>

#include "manifest.hpp"
#include "onnxruntime.hpp"

namespace glm {

class Graph {
 public:
  // `threads`: 0 takes the physical cores. Throws GLM_BAD_FOLDER: ONNX Runtime refuses the graph,
  // or a tensor is not what the manifest promises.
  Graph(const std::string& path, const ModelShape& model, int threads);

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

// Names of a layer's cache, as the graph has them behind "past_key_values." and "present.".
std::string name_cache(int64_t layer, bool is_value);

}  // namespace glm
