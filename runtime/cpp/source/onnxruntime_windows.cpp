// Loaded by its place and not linked, since Windows has an old onnxruntime.dll in System32, which
// a linked program gets wherever there is none in the program's own folder.
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
constexpr char kAdvice[] = "; take that of a release of ONNX Runtime for Windows, x64, 1.24 or later";

// NULL is the program.
std::filesystem::path find_file(HMODULE module) {
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

// glm.dll, or the program that this was linked into.
std::filesystem::path find_own_file() {
  HMODULE module = nullptr;
  DWORD flags = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS |
                GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
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

// From the folders that the program added. A bare name also finds what the process has loaded
// already, be it System32's.
HMODULE load_by_name() {
  HMODULE module = load(kName, LOAD_LIBRARY_SEARCH_APPLICATION_DIR | LOAD_LIBRARY_SEARCH_USER_DIRS);
  if (module == nullptr || !is_of_system(module)) return module;
  FreeLibrary(module);
  SetLastError(ERROR_MOD_NOT_FOUND);
  return nullptr;
}

// Beside us, in the program's folder, or else where its own libraries are. Never in System32.
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
