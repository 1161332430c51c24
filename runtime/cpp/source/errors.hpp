// The exception of this library: a status and a message. glm.cpp catches it.
#pragma once

#include <stdexcept>
#include <string>

#include "glm.h"

namespace glm {

class Error : public std::runtime_error {
 public:
  Error(glm_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
  glm_status status() const { return status_; }

 private:
  glm_status status_;
};

}  // namespace glm
