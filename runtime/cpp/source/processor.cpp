#include "processor.hpp"

#include <fstream>

namespace glm {

std::string describe_processor() {
  std::ifstream file("/proc/cpuinfo");
  std::string text;
  for (std::string line; std::getline(file, line) && !line.empty();) {
    std::string name = line.substr(0, line.find_first_of("\t:"));
    bool is_kept = name == "model name" || name == "flags" || name == "Features" ||
                   name == "CPU part" || name == "CPU variant";
    if (is_kept) text += line + "\n";
  }
  return text;
}

}  // namespace glm
