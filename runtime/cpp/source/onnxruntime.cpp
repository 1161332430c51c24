#include "onnxruntime.hpp"

#include <cstdlib>
#include <utility>

#include "errors.hpp"
#include "onnxruntime_library.hpp"

namespace glm {
namespace {

// The functions that we call exist since ONNX Runtime 1.16. Exported folders need 1.24 or later.
constexpr uint32_t kApiVersion = 16;
constexpr char kOldest[] = "1.24";

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

std::pair<long, long> read_version(const std::string& version) {
  char* rest = nullptr;
  long major = std::strtol(version.c_str(), &rest, 10);
  return {major, *rest == '.' ? std::strtol(rest + 1, nullptr, 10) : 0};
}

// Checks the version first, because an old library writes to stderr if it lacks the API version.
const OrtApi* find_api() {
  std::string version = find_library().GetVersionString();
  bool is_old = read_version(version) < read_version(kOldest);
  const OrtApi* api = is_old ? nullptr : find_library().GetApi(kApiVersion);
  if (api != nullptr) return api;
  throw Error(GLM_RUN_FAILED, "ONNX Runtime is " + version + " where " + kOldest +
                                  " or later is expected; upgrade it.");
}

}  // namespace

void require_version(const std::string& oldest) {
  std::string version = find_library().GetVersionString();
  if (oldest.empty() || read_version(version) >= read_version(oldest)) return;
  throw Error(GLM_UNSUPPORTED, "ONNX Runtime is " + version + ", but this folder needs " + oldest +
                                   " or later; upgrade it.");
}

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
