// Loaded by its place and not linked, since Windows has an old onnxruntime.dll in System32, which
// a linked program gets wherever there is none in the program's own folder.
#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <filesystem>
#include <new>
#include <string>

#include "errors.hpp"
#include "library.hpp"
#include "paths.hpp"

namespace glm {
namespace {

using GetBase = const OrtApiBase*(ORT_API_CALL*)();

constexpr wchar_t kName[] = L"onnxruntime.dll";
constexpr char kAdvice[] = "; take that of a release of ONNX Runtime for Windows, x64, 1.24 or later";

// glm.dll, or the program that this was linked into.
std::filesystem::path find_own_file() {
  HMODULE module = nullptr;
  DWORD flags = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS |
                GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
  GetModuleHandleExW(flags, reinterpret_cast<LPCWSTR>(&find_own_file), &module);
  std::wstring name(MAX_PATH, L'\0');
  DWORD length = 0;
  // A length as long as the room means that the name was cut off.
  while ((length = GetModuleFileNameW(module, name.data(), static_cast<DWORD>(name.size()))) ==
         name.size()) {
    name.resize(2 * name.size());
  }
  name.resize(length);
  return name;
}

// Without a message box where the file is no library. NULL: see GetLastError.
HMODULE load(const std::filesystem::path& path, DWORD flags) {
  DWORD old_mode = 0;
  SetThreadErrorMode(SEM_FAILCRITICALERRORS, &old_mode);
  HMODULE module = LoadLibraryExW(path.c_str(), nullptr, flags);
  DWORD code = GetLastError();
  SetThreadErrorMode(old_mode, nullptr);
  SetLastError(code);
  return module;
}

// Beside us; or else where the program's own libraries are. Never in System32.
HMODULE load_anywhere() {
  std::filesystem::path beside = find_own_file().parent_path() / kName;
  std::error_code error;
  bool is_beside = std::filesystem::exists(beside, error);
  HMODULE module =
      is_beside ? load(beside, LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR | LOAD_LIBRARY_SEARCH_DEFAULT_DIRS)
                : load(kName, LOAD_LIBRARY_SEARCH_APPLICATION_DIR | LOAD_LIBRARY_SEARCH_USER_DIRS);
  if (module != nullptr) return module;
  DWORD reason = GetLastError();
  if (reason == ERROR_NOT_ENOUGH_MEMORY || reason == ERROR_OUTOFMEMORY) throw std::bad_alloc();
  std::string code = " (Windows error " + std::to_string(reason) + ")";
  if (is_beside) {
    throw Error(GLM_RUN_FAILED, show_path(beside) + " cannot be loaded" + code + kAdvice +
                                    ", and install Microsoft's Visual C++ Redistributable.");
  }
  throw Error(GLM_RUN_FAILED, show_path(beside) + " is missing" + code + kAdvice + ".");
}

GetBase find_entry() {
  HMODULE module = load_anywhere();
  // Through void*: what GetProcAddress gives has the type of no function.
  auto entry = reinterpret_cast<GetBase>(
      reinterpret_cast<void*>(GetProcAddress(module, "OrtGetApiBase")));
  if (entry != nullptr) return entry;
  throw Error(GLM_RUN_FAILED, "onnxruntime.dll has no OrtGetApiBase" + std::string(kAdvice) + ".");
}

}  // namespace

const OrtApiBase& find_library() {
  static const GetBase entry = find_entry();  // after a failure it is looked for again
  return *entry();
}

}  // namespace glm
