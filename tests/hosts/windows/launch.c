/* Starts a program under circumstances that only Windows has, for tests/hosts/test_windows.py.
 * Its exit code is the program's; 99 where it did not end in time, 98 where it did not start.
 *
 *   launch surrogate COMMAND        with half a surrogate pair as one more argument
 *   launch locked FILE COMMAND      while FILE is open and may not be opened again
 */
#include <wchar.h>
#include <windows.h>

enum { PATIENCE_MS = 60000, MOST_UNITS = 1 << 15 };

static wchar_t command[MOST_UNITS];

static int run(void) {
  STARTUPINFOW startup = {.cb = sizeof startup};
  PROCESS_INFORMATION child;
  DWORD code = 99;
  if (!CreateProcessW(NULL, command, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &child)) return 98;
  if (WaitForSingleObject(child.hProcess, PATIENCE_MS) == WAIT_TIMEOUT) {
    TerminateProcess(child.hProcess, code);
    return 99;
  }
  GetExitCodeProcess(child.hProcess, &code);
  return (int)code;
}

int wmain(int count, wchar_t** values) {
  if (count < 3 || wcslen(values[count - 1]) > MOST_UNITS / 2) return 2;
  wcscpy(command, values[count - 1]);
  if (wcscmp(values[1], L"surrogate") == 0) wcscat(command, L" \xD83D");
  if (wcscmp(values[1], L"locked") == 0) {
    HANDLE file = CreateFileW(values[2], GENERIC_READ, 0, NULL, OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE) return 2;
  }
  return run();
}
