// Computes rotation tables for other rotary settings than the folder's. See glm_runtime's
// graph/rotary.py.
#pragma once

#include <string_view>

#include "manifest.hpp"

namespace glm {

// `factor`: 1 for no scaling, above 1 for YaRN. `original_context`: 0 for the folder's.
struct RopeScaling {
  double factor = 1;
  int64_t original_context = 0;
};

// Sets the context length and the tables of `manifest`, whose text is `json`. Throws
// GLM_BAD_SETTING for values out of range, and GLM_BAD_FOLDER if the folder does not say how its
// tables were computed.
void scale_rope(std::string_view json, const RopeScaling& scaling, Manifest* manifest);

}  // namespace glm
