// Where ONNX Runtime's library comes from: linked, or on Windows looked for beside this one.
#pragma once

#include "onnxruntime.hpp"

namespace glm {

// Throws GLM_RUN_FAILED: it is not there, or cannot be loaded.
const OrtApiBase& find_library();

}  // namespace glm
