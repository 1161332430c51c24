// Prepared copies: a graph with weights that are packed for this machine's kernels, which are
// mapped from the file. Without one, ONNX Runtime packs the weights into private memory at every
// load. A copy is valid for one version of ONNX Runtime on one kind of processor, which its record
// identifies.
#pragma once

#include <string>

#include "manifest.hpp"

namespace glm {

// Throws GLM_BAD_FOLDER if the copy was made from another folder or for another machine, or is
// damaged.
void check_prepared(const std::string& prepared, const Manifest& manifest, bool has_hashes);

// Writes a copy to the new folder `output`. Throws GLM_BAD_FOLDER if the hashes of the graph differ
// from the manifest, and GLM_BAD_SETTING if the copy cannot be written.
void write_prepared(const std::string& folder, const Manifest& manifest, const std::string& output,
                    int threads);

}  // namespace glm
