#include "cores.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace glm {

#ifdef __linux__

namespace {

std::string read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

int count_allowed_cores() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    std::string number = std::to_string(cpu);
    std::string siblings =
        read_line("/sys/devices/system/cpu/cpu" + number + "/topology/thread_siblings_list");
    cores.insert(siblings.empty() ? number : siblings);
  }
  return static_cast<int>(cores.size());
}

// CPU limit of the control group, in cores; infinite without a limit.
double read_cpu_quota() {
  double quota = 0, period = 0;
  std::ifstream unified("/sys/fs/cgroup/cpu.max");
  if (unified >> quota >> period && period > 0) return quota / period;
  std::ifstream old_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream old_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (old_quota >> quota && old_period >> period && quota > 0 && period > 0) return quota / period;
  return HUGE_VAL;
}

}  // namespace

int count_usable_cores() {
  double quota = std::ceil(read_cpu_quota());
  int cores = count_allowed_cores();
  return std::max(1, quota < cores ? static_cast<int>(quota) : cores);
}

#else

int count_usable_cores() { return std::max(1u, std::thread::hardware_concurrency()); }

#endif

}  // namespace glm
