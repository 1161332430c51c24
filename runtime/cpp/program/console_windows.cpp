#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
// These headers need windows.h before them.
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
constexpr DWORD kMostTyped = 4096;     // UTF-16 units that are read at a time
constexpr DWORD kHandlerMs = 1000;
constexpr size_t kBuffer = 1 << 16;

UINT old_output_page = 0;
void (*on_interrupt)() = nullptr;

// An unpaired surrogate becomes U+FFFD. If `flags` is WC_ERR_INVALID_CHARS, the result is empty
// instead.
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

// Reads what was typed up to Enter. This uses ReadConsoleW, because before Windows 11 a console
// returns zero bytes for characters outside ASCII.
bool read_typed_line(std::string* line) {
  std::wstring typed;
  wchar_t part[kMostTyped];
  while (typed.empty() || typed.back() != L'\n') {
    DWORD count = 0;
    HANDLE input = GetStdHandle(STD_INPUT_HANDLE);
    SetLastError(ERROR_SUCCESS);
    if (!ReadConsoleW(input, part, kMostTyped, &count, nullptr) || count == 0) {
      // After Ctrl-C, the handler in its own thread is about to end the program.
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

// The arguments of main are not used: they are in the system's code page, and `*` may be expanded.
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
                       " is not valid Unicode: it contains an unpaired surrogate.");
    }
  }
  return arguments;
}

void open_streams() {
  for (FILE* stream : {stdin, stdout, stderr}) {
    if (_fileno(stream) >= 0) _setmode(_fileno(stream), _O_BINARY);  // a service has no streams
  }
  // Without a buffer, the console gets single bytes and does not combine them to characters.
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

bool is_terminal(FILE* stream) {
  if (stream == stdin) return is_console(STD_INPUT_HANDLE);
  return is_console(stream == stdout ? STD_OUTPUT_HANDLE : STD_ERROR_HANDLE);
}

bool read_line(std::string* line) {
  std::fflush(stdout);  // nothing else flushes them on Windows
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
  SetConsoleCtrlHandler(nullptr, FALSE);  // the parent process may ignore Ctrl-C
  SetConsoleCtrlHandler(handle_control, TRUE);
}

double read_peak_bytes() {
  PROCESS_MEMORY_COUNTERS counters{};
  if (!K32GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters)) return 0;
  return static_cast<double>(counters.PeakWorkingSetSize);
}

void leave(int code) {
  if (old_output_page != 0) SetConsoleOutputCP(old_output_page);
  // ExitProcess would run the cleanup of every library after the other threads were ended.
  TerminateProcess(GetCurrentProcess(), static_cast<UINT>(code));
  std::abort();
}
