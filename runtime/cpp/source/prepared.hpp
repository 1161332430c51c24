// A copy of a graph as this machine's kernels want it, so that its weights are mapped: ONNX Runtime
// packs model.onnx's anew at every load, into memory of its own. Good for one version of ONNX
// Runtime on one kind of processor, which its record names.
#pragma once

#include <string>

#include "manifest.hpp"

namespace glm {

// Throws GLM_BAD_FOLDER: it was made of another folder, or for another machine, or is damaged.
void check_prepared(const std::string& prepared, const Manifest& manifest, bool has_hashes);

// Makes it, of a graph that is the manifest's to the last byte; `output` must not exist. Throws
// GLM_BAD_FOLDER: the graph is damaged; GLM_BAD_SETTING: the copy cannot be written.
void write_prepared(const std::string& folder, const Manifest& manifest,
                    const std::string& output, int threads);

}  // namespace glm
