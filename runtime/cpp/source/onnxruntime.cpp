#include "onnxruntime.hpp"

#include <cstdlib>

#include "errors.hpp"
#include "onnxruntime_library.hpp"

namespace glm {
namespace {

// The functions that we call exist since ONNX Runtime 1.16. Exported folders need 1.24 or later.
constexpr uint32_t kApiVersion = 16;
constexpr long kOldestMinor = 24;

bool is_out_of_memory(const std::string& message) {
  for (const char* words : {"bad_alloc", "bad allocation", "Failed to allocate", "out of memory"}) {
    if (message.find(words) != std::string::npos) return true;
  }
  return false;
}

std::string take_first_line(const char* message) {
  std::string text = message == nullptr ? "no reason given" : message;
  return text.substr(0, text.find('\n'));
}

bool is_old(const std::string& version) {
  char* rest = nullptr;
  long major = std::strtol(version.c_str(), &rest, 10);
  long minor = *rest == '.' ? std::strtol(rest + 1, nullptr, 10) : 0;
  return major < 1 || (major == 1 && minor < kOldestMinor);
}

// Checks the version first, because an old library writes to stderr if it lacks the API version.
const OrtApi* find_api() {
  std::string version = find_library().GetVersionString();
  const OrtApi* api = is_old(version) ? nullptr : find_library().GetApi(kApiVersion);
  if (api != nullptr) return api;
  throw Error(GLM_RUN_FAILED, "ONNX Runtime is " + version + " where 1." +
                                  std::to_string(kOldestMinor) +
                                  " or later is expected; upgrade it.");
}

}  // namespace

const OrtApi& ort() {
  static const OrtApi* const api = find_api();
  return *api;
}

void check(OrtStatus* status, glm_status kind, const std::string& place,
           const std::string& advice) {
  if (status == nullptr) return;
  Owned<OrtStatus> owned(status);
  std::string message = take_first_line(ort().GetErrorMessage(status));
  if (is_out_of_memory(message)) {
    throw Error(GLM_NO_MEMORY, "out of memory " + place + " (" + message +
                                   "); close other programs, or use a smaller model or context.");
  }
  throw Error(kind, "ONNX Runtime " + std::string(find_library().GetVersionString()) + " failed " +
                        place + " (" + message + "); " + advice);
}

void check(OrtStatus* status) {
  check(status, GLM_RUN_FAILED, "while setting up inference",
        "upgrade ONNX Runtime, or report this bug.");
}

}  // namespace glm
