// ONNX Runtime's C API with owners for what it hands out, and its failures as our errors.
#pragma once

#ifdef __MINGW32__  // names of MSVC that the header uses on Windows
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

// Throws GLM_RUN_FAILED: the library is too old.
const OrtApi& ort();

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

// Throws `kind`, or GLM_NO_MEMORY where ONNX Runtime says so; `place` and `advice` frame its words.
void check(OrtStatus* status, glm_status kind, const std::string& place, const std::string& advice);

// The same for what has no reason to fail.
void check(OrtStatus* status);

}  // namespace glm
