// The graph of a folder in ONNX Runtime, which packs the weights for its kernels into private
// memory of about the size of their file. The weights of a prepared graph are mapped from the file
// instead.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "manifest.hpp"
#include "onnxruntime.hpp"

namespace glm {

class Graph {
 public:
  // `is_packed`: written by `write_packed_graph`. `threads`: 0 means the physical cores. Throws
  // GLM_BAD_FOLDER if ONNX Runtime refuses the graph, or if a tensor differs from the manifest. The
  // manifest's tables replace initializers of the graph and must outlive it.
  Graph(const std::filesystem::path& path, bool is_packed, const Manifest& manifest, int threads);

  OrtSession* session() const { return session_.get(); }
  int threads() const { return threads_; }
  ONNXTensorElementDataType cache_type() const { return cache_type_; }
  ONNXTensorElementDataType logits_type() const { return logits_type_; }

 private:
  Owned<OrtEnv> env_;
  std::vector<Owned<OrtValue>> tables_;
  Owned<OrtSession> session_;
  int threads_;
  ONNXTensorElementDataType cache_type_, logits_type_;
};

// Writes an optimized graph, and beside it a file of weights that are packed for this machine's
// kernels. Throws GLM_BAD_SETTING if it cannot be written.
void write_packed_graph(const std::filesystem::path& path, const std::filesystem::path& output,
                        int threads);

// Name of a layer's keys or values in the graph, after "past_key_values." or "present.".
std::string name_cache(int64_t layer, bool is_value);

}  // namespace glm
