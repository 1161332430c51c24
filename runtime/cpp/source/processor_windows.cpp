#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include "processor.hpp"

namespace glm {

// Family, model and stepping, and the name, which tell virtual machines of one model apart.
std::string describe_processor() {
  std::string text;
  for (const char* name : {"Identifier", "ProcessorNameString"}) {
    char value[256] = "";
    DWORD size = sizeof value;
    LSTATUS status = RegGetValueA(HKEY_LOCAL_MACHINE,
                                  "HARDWARE\\DESCRIPTION\\System\\CentralProcessor\\0", name,
                                  RRF_RT_REG_SZ, nullptr, value, &size);
    if (status == ERROR_SUCCESS) text += std::string(value) + "\n";
  }
  return text;
}

}  // namespace glm
