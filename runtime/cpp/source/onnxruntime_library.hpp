// Finds ONNX Runtime's library, which is linked, or on Windows loaded from this library's folder.
#pragma once

#include "onnxruntime.hpp"

namespace glm {

// Throws GLM_RUN_FAILED if the library is missing or cannot be loaded.
const OrtApiBase& find_library();

}  // namespace glm
