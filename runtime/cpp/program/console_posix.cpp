#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <thread>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#include "console.hpp"

std::vector<std::string> list_arguments(int count, char** values) {
  return count > 0 ? std::vector<std::string>(values + 1, values + count)
                   : std::vector<std::string>();
}

void open_streams() {}

void turn_telemetry_off() { setenv("ORT_DISABLE_TELEMETRY", "1", 0); }

bool is_terminal(FILE* stream) { return isatty(fileno(stream)) != 0; }

bool read_line(std::string* line) { return static_cast<bool>(std::getline(std::cin, *line)); }

std::string read_all() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

void watch_interrupts(void (*interrupt)()) {
  sigset_t interrupts;
  sigemptyset(&interrupts);
  sigaddset(&interrupts, SIGINT);
  pthread_sigmask(SIG_BLOCK, &interrupts, nullptr);  // inherited by the threads of ONNX Runtime
  std::thread([interrupts, interrupt] {
    for (int signal = 0; sigwait(&interrupts, &signal) == 0;) interrupt();
  }).detach();
}

double read_peak_bytes() {
  std::ifstream file("/proc/self/status");  // exists on Linux only
  for (std::string word; file >> word;) {
    double kilobytes = 0;
    if (word == "VmHWM:" && file >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

void leave(int code) {
#ifdef __SANITIZE_ADDRESS__
  __lsan_do_leak_check();  // _exit does not call this
#endif
  _exit(code);
}
