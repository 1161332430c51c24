#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "cores.hpp"

namespace glm {
namespace {

// An affinity mask describes one group of 64 processors. With several groups, all are allowed.
KAFFINITY find_allowed() {
  DWORD_PTR allowed = 0, existing = 0;
  bool is_one_group = GetActiveProcessorGroupCount() == 1;
  bool is_known = GetProcessAffinityMask(GetCurrentProcess(), &allowed, &existing) != 0;
  return is_one_group && is_known && allowed != 0 ? allowed : ~KAFFINITY{0};
}

}  // namespace

int count_usable_cores() {
  DWORD size = 0;
  GetLogicalProcessorInformationEx(RelationProcessorCore, nullptr, &size);
  std::vector<char> buffer(size);
  using Entry = SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX;
  auto* entries = reinterpret_cast<Entry*>(buffer.data());
  int count = 0;
  if (size > 0 && GetLogicalProcessorInformationEx(RelationProcessorCore, entries, &size)) {
    KAFFINITY allowed = find_allowed();
    for (DWORD place = 0; place < size;) {
      auto* core = reinterpret_cast<const Entry*>(buffer.data() + place);
      if (core->Processor.GroupMask[0].Mask & allowed) ++count;
      place += core->Size;
    }
  }
  if (count > 0) return count;
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace glm
