#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#if defined(__x86_64__)  // GCC's name, then MSVC's
#include <cpuid.h>
#elif defined(_M_X64)
#include <intrin.h>
#endif

#include <utility>

#include "processor.hpp"

namespace glm {
namespace {

constexpr DWORD kMostFeatures = 128;  // Windows reports unknown features as absent

std::string list_features() {
  std::string text;
  for (DWORD feature = 0; feature < kMostFeatures; ++feature) {
    text += IsProcessorFeaturePresent(feature) ? '1' : '0';
  }
  return text + "\n";
}

// The CPUID bits by which kernels are chosen, because Windows has no names for the parts of
// AVX-512. EBX of leaf 1 is left out, because it differs between the cores of one processor.
std::string list_instruction_sets() {
  std::string text;
#if defined(__x86_64__) || defined(_M_X64)
  for (auto [leaf, part] : {std::pair(0, 0), std::pair(1, 0), std::pair(7, 0), std::pair(7, 1)}) {
    int found[4] = {};
#if defined(__x86_64__)
    __cpuid_count(leaf, part, found[0], found[1], found[2], found[3]);
#else
    __cpuidex(found, leaf, part);
#endif
    if (leaf == 1) found[1] = 0;
    for (int bits : found) text += std::to_string(static_cast<unsigned>(bits)) + " ";
  }
#endif
  return text + "\n";
}

}  // namespace

// Family, model, stepping, name and features. Two virtual machines on the same processor may have
// different features. Empty if Windows does not report the processor.
std::string describe_processor() {
  std::string text;
  for (const char* name : {"Identifier", "ProcessorNameString"}) {
    char value[256] = "";
    DWORD size = sizeof value;
    LSTATUS status =
        RegGetValueA(HKEY_LOCAL_MACHINE, "HARDWARE\\DESCRIPTION\\System\\CentralProcessor\\0", name,
                     RRF_RT_REG_SZ, nullptr, value, &size);
    if (status == ERROR_SUCCESS) text += std::string(value) + "\n";
  }
  return text.empty() ? "" : text + list_features() + list_instruction_sets();
}

}  // namespace glm
