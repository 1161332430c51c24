#include "onnxruntime.hpp"

#include <cstdlib>

#include "errors.hpp"
#include "onnxruntime_library.hpp"

namespace glm {
namespace {

// All that is called is in the API since ONNX Runtime 1.16; the folders need 1.24 or later.
constexpr uint32_t kApiVersion = 16;
constexpr long kOldestMinor = 24;

bool tells_of_memory(const std::string& message) {
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

// By its number first, since an old library writes to stderr when it is asked for a newer API.
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
  if (tells_of_memory(message)) {
    throw Error(GLM_NO_MEMORY, "memory ran out " + place + " (" + message +
                                   "); close other programs, or use a smaller model or context.");
  }
  throw Error(kind, "ONNX Runtime " + std::string(find_library().GetVersionString()) +
                        " failed " + place + " (" + message + "); " + advice);
}

void check(OrtStatus* status) {
  check(status, GLM_RUN_FAILED, "to prepare", "upgrade it, or report this.");
}

}  // namespace glm
