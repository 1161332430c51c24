// Checks and copies a caller's glm_settings. The copy does not refer to the caller's memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "glm.h"
#include "manifest.hpp"

namespace glm {

struct Settings {
  glm_settings plain{};  // for its numbers; its pointers are not used
  std::vector<glm_bias> biases;
  std::vector<std::string> stop, dry_breakers;
};

// Greedy decoding without penalties. DRY is off, and its other members have their usual values.
glm_settings make_neutral_settings();

// Both throw GLM_BAD_SETTING if a value is outside its range, or if a pointer is NULL.
void check_settings(const glm_settings& settings);
Settings read_settings(const glm_settings& settings, const ModelShape& model);

}  // namespace glm
