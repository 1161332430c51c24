// A caller's glm_settings, checked and copied: nothing in it points outside.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "glm.h"
#include "manifest.hpp"

namespace glm {

struct Settings {
  glm_settings plain{};  // the numbers; its pointers are not used
  std::vector<glm_bias> biases;
  std::vector<std::string> stop, dry_breakers;
};

// What is in force where nothing is said: likeliest token, no penalties, DRY's usual values, off.
glm_settings make_plain_settings();

// Throws GLM_BAD_SETTING: a value is outside its range, or a NULL where something is needed.
void check_settings(const glm_settings& settings);
Settings read_settings(const glm_settings& settings, const ModelShape& model);

}  // namespace glm
