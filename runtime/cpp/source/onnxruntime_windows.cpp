// Loads onnxruntime.dll by its path. If it was linked, a program without its own copy would get the
// old onnxruntime.dll that Windows has in System32.
#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <filesystem>
#include <new>
#include <string>

#include "errors.hpp"
#include "onnxruntime_library.hpp"
#include "paths.hpp"

namespace glm {
namespace {

using GetBase = const OrtApiBase*(ORT_API_CALL*)();

constexpr wchar_t kName[] = L"onnxruntime.dll";
constexpr char kAdvice[] =
    "; use the DLL of a release of ONNX Runtime for Windows x64, 1.24 or later";

// `module` NULL stands for the program.
std::filesystem::path find_file(HMODULE module) {
  std::wstring name(MAX_PATH, L'\0');
  DWORD length = 0;
  // If the length equals the size of the buffer, the name was cut off.
  while ((length = GetModuleFileNameW(module, name.data(), static_cast<DWORD>(name.size()))) ==
         name.size()) {
    name.resize(2 * name.size());
  }
  name.resize(length);
  return name;
}

// The path of glm.dll, or of the program that this code was linked into.
std::filesystem::path find_own_file() {
  HMODULE module = nullptr;
  DWORD flags =
      GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
  GetModuleHandleExW(flags, reinterpret_cast<LPCWSTR>(&find_own_file), &module);
  return find_file(module);
}

bool is_of_system(HMODULE module) {
  wchar_t system[MAX_PATH] = L"";
  UINT length = GetSystemDirectoryW(system, MAX_PATH);
  std::error_code error;
  return length > 0 && length < MAX_PATH &&
         std::filesystem::equivalent(find_file(module).parent_path(), system, error);
}

// Shows no message box if the file is not a library. Returns NULL on failure; see GetLastError.
HMODULE load(const std::filesystem::path& path, DWORD flags) {
  DWORD old_mode = 0;
  SetThreadErrorMode(SEM_FAILCRITICALERRORS, &old_mode);
  HMODULE module = LoadLibraryExW(path.c_str(), nullptr, flags);
  DWORD code = GetLastError();
  SetThreadErrorMode(old_mode, nullptr);
  SetLastError(code);
  return module;
}

// Searches the folders that the program added. A name without a path also finds a DLL that the
// process has loaded before, which may be the one of System32.
HMODULE load_by_name() {
  HMODULE module = load(kName, LOAD_LIBRARY_SEARCH_APPLICATION_DIR | LOAD_LIBRARY_SEARCH_USER_DIRS);
  if (module == nullptr || !is_of_system(module)) return module;
  FreeLibrary(module);
  SetLastError(ERROR_MOD_NOT_FOUND);
  return nullptr;
}

// Searches this library's folder, the program's folder, and the folders that the program added.
HMODULE load_anywhere() {
  std::filesystem::path beside = find_own_file().parent_path() / kName;
  std::filesystem::path place = beside;
  std::error_code error;
  bool is_there = std::filesystem::exists(place, error);
  if (!is_there) {
    place = find_file(nullptr).parent_path() / kName;
    is_there = std::filesystem::exists(place, error);
  }
  HMODULE module =
      is_there ? load(place, LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR | LOAD_LIBRARY_SEARCH_DEFAULT_DIRS)
               : load_by_name();
  if (module != nullptr) return module;
  DWORD reason = GetLastError();
  if (reason == ERROR_NOT_ENOUGH_MEMORY || reason == ERROR_OUTOFMEMORY) throw std::bad_alloc();
  std::string code = " (Windows error " + std::to_string(reason) + ")";
  if (is_there) {
    throw Error(GLM_RUN_FAILED, show_path(place) + " cannot be loaded" + code + kAdvice +
                                    ", and install Microsoft's Visual C++ Redistributable.");
  }
  throw Error(GLM_RUN_FAILED, show_path(beside) + " is missing" + code + kAdvice + ".");
}

GetBase find_entry() {
  HMODULE module = load_anywhere();
  // The cast through void* avoids a warning: GetProcAddress returns an unspecific function type.
  auto entry =
      reinterpret_cast<GetBase>(reinterpret_cast<void*>(GetProcAddress(module, "OrtGetApiBase")));
  if (entry != nullptr) return entry;
  throw Error(GLM_RUN_FAILED, "onnxruntime.dll has no OrtGetApiBase" + std::string(kAdvice) + ".");
}

}  // namespace

const OrtApiBase& find_library() {
  static const GetBase entry = find_entry();  // searched again after a failure
  return *entry();
}

}  // namespace glm
