#include "onnxruntime_library.hpp"

namespace glm {

const OrtApiBase& find_library() { return *OrtGetApiBase(); }

}  // namespace glm
