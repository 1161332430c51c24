#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
// Behind windows.h, which they need.
#include <fcntl.h>
#include <io.h>
#include <psapi.h>
#include <shellapi.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <memory>
#include <string_view>

#include "arguments.hpp"
#include "console.hpp"

namespace {

constexpr wchar_t kEndOfInput = 0x1A;  // Ctrl-Z
constexpr DWORD kMostTyped = 4096;     // UTF-16 units that are read at once
constexpr DWORD kHandlerMs = 1000;
constexpr size_t kBuffer = 1 << 16;

UINT old_output_page = 0;
void (*on_interrupt)() = nullptr;

// Empty where half a surrogate pair stands alone and `flags` is WC_ERR_INVALID_CHARS; otherwise
// that becomes U+FFFD.
std::string to_utf8(std::wstring_view text, DWORD flags) {
  auto units = static_cast<int>(text.size());
  int size = WideCharToMultiByte(CP_UTF8, flags, text.data(), units, nullptr, 0, nullptr, nullptr);
  std::string bytes(static_cast<size_t>(size), '\0');
  WideCharToMultiByte(CP_UTF8, flags, text.data(), units, bytes.data(), size, nullptr, nullptr);
  return bytes;
}

bool is_console(DWORD name) {
  DWORD mode = 0;
  return GetConsoleMode(GetStdHandle(name), &mode) != 0;
}

// What was typed up to Enter. Through ReadConsoleW: as bytes, a console gives other characters than
// ASCII as zeros before Windows 11.
bool read_typed_line(std::string* line) {
  std::wstring typed;
  wchar_t part[kMostTyped];
  while (typed.empty() || typed.back() != L'\n') {
    DWORD count = 0;
    HANDLE input = GetStdHandle(STD_INPUT_HANDLE);
    SetLastError(ERROR_SUCCESS);
    if (!ReadConsoleW(input, part, kMostTyped, &count, nullptr) || count == 0) {
      // Ctrl-C, whose handler is about to end the program from its own thread.
      if (GetLastError() == ERROR_OPERATION_ABORTED) Sleep(kHandlerMs);
      break;
    }
    typed.append(part, count);
  }
  if (typed.empty() || typed[0] == kEndOfInput) return false;
  while (!typed.empty() && (typed.back() == L'\n' || typed.back() == L'\r')) typed.pop_back();
  *line = to_utf8(typed, 0);
  return true;
}

BOOL WINAPI handle_control(DWORD event) {
  if (event != CTRL_C_EVENT && event != CTRL_BREAK_EVENT) return FALSE;
  on_interrupt();
  return TRUE;
}

}  // namespace

// Not main's, which are in the code page of the system, and may have `*` replaced by file names.
std::vector<std::string> list_arguments(int, char**) {
  int count = 0;
  std::unique_ptr<wchar_t*, HLOCAL (*)(HLOCAL)> values(
      reinterpret_cast<wchar_t**>(CommandLineToArgvW(GetCommandLineW(), &count)), LocalFree);
  std::vector<std::string> arguments;
  for (int i = 1; values && i < count; ++i) {
    std::wstring_view value = values.get()[i];
    arguments.push_back(value.empty() ? "" : to_utf8(value, WC_ERR_INVALID_CHARS));
    if (!value.empty() && arguments.back().empty()) {
      throw UsageError("argument " + std::to_string(i) +
                       " holds half a surrogate pair where Unicode text is expected.");
    }
  }
  return arguments;
}

void open_streams() {
  for (FILE* stream : {stdin, stdout, stderr}) {
    if (_fileno(stream) >= 0) _setmode(_fileno(stream), _O_BINARY);  // a service has none
  }
  // Without a buffer single bytes reach the console, which makes no characters of them.
  for (FILE* stream : {stdout, stderr}) std::setvbuf(stream, nullptr, _IOFBF, kBuffer);
  if (!is_console(STD_OUTPUT_HANDLE) && !is_console(STD_ERROR_HANDLE)) return;
  old_output_page = GetConsoleOutputCP();
  SetConsoleOutputCP(CP_UTF8);
}

void turn_telemetry_off() {
  if (GetEnvironmentVariableW(L"ORT_DISABLE_TELEMETRY", nullptr, 0) == 0) {
    SetEnvironmentVariableW(L"ORT_DISABLE_TELEMETRY", L"1");
  }
}

bool read_line(std::string* line) {
  std::fflush(stdout);  // no terminal's line buffer does it here
  std::fflush(stderr);
  if (is_console(STD_INPUT_HANDLE)) return read_typed_line(line);
  if (!std::getline(std::cin, *line)) return false;
  if (!line->empty() && line->back() == '\r') line->pop_back();
  return true;
}

std::string read_all() {
  if (!is_console(STD_INPUT_HANDLE)) {
    return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  }
  std::string text;
  for (std::string line; read_typed_line(&line);) text += line + "\n";
  return text;
}

void watch_interrupts(void (*interrupt)()) {
  on_interrupt = interrupt;
  SetConsoleCtrlHandler(nullptr, FALSE);  // a parent may have had Ctrl-C ignored
  SetConsoleCtrlHandler(handle_control, TRUE);
}

double read_peak_bytes() {
  PROCESS_MEMORY_COUNTERS counters{};
  if (!K32GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters)) return 0;
  return static_cast<double>(counters.PeakWorkingSetSize);
}

void leave(int code) {
  if (old_output_page != 0) SetConsoleOutputCP(old_output_page);
  // Not ExitProcess, which lets every library tidy up while other threads are gone.
  TerminateProcess(GetCurrentProcess(), static_cast<UINT>(code));
  std::abort();
}
