// ONNX Runtime's C API, with handles that release themselves and errors as exceptions.
#pragma once

#ifdef __MINGW32__  // the header uses these names of MSVC on Windows
#include <sal.h>
#ifndef _stdcall
#define _stdcall __stdcall
#endif
#endif

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>

#include "glm.h"

namespace glm {

// Throws GLM_RUN_FAILED if the library is too old.
const OrtApi& ort();

// Throws GLM_UNSUPPORTED if the library is older than `oldest`, such as "1.27"; "" is any version.
void require_version(const std::string& oldest);

struct Release {
  void operator()(OrtEnv* p) const { ort().ReleaseEnv(p); }
  void operator()(OrtSession* p) const { ort().ReleaseSession(p); }
  void operator()(OrtSessionOptions* p) const { ort().ReleaseSessionOptions(p); }
  void operator()(OrtRunOptions* p) const { ort().ReleaseRunOptions(p); }
  void operator()(OrtIoBinding* p) const { ort().ReleaseIoBinding(p); }
  void operator()(OrtMemoryInfo* p) const { ort().ReleaseMemoryInfo(p); }
  void operator()(OrtValue* p) const { ort().ReleaseValue(p); }
  void operator()(OrtTypeInfo* p) const { ort().ReleaseTypeInfo(p); }
  void operator()(OrtStatus* p) const { ort().ReleaseStatus(p); }
};

template <class T>
using Owned = std::unique_ptr<T, Release>;

// Throws `kind`, or GLM_NO_MEMORY if ONNX Runtime ran out of memory. The message contains `place`,
// the message of ONNX Runtime, and `advice`.
void check(OrtStatus* status, glm_status kind, const std::string& place, const std::string& advice);

// The same for calls that should never fail.
void check(OrtStatus* status);

}  // namespace glm
