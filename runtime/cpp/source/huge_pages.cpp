#include "huge_pages.hpp"

#ifdef __linux__

#include <sys/mman.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace glm {
namespace {

constexpr uint64_t kHugePage = 2 << 20;
constexpr int kCollapse = 25;  // MADV_COLLAPSE: Linux 6.1, include/uapi/asm-generic/mman-common.h

struct Span {
  uint64_t start, end;
};

// Finds all ranges of whole huge pages in private writable memory without a file.
std::vector<Span> find_spans() {
  std::ifstream maps("/proc/self/maps");
  std::vector<Span> spans;
  for (std::string line; std::getline(maps, line);) {
    std::istringstream words(line);
    uint64_t first = 0, last = 0;
    char dash = 0;
    std::string permissions, offset, device, node, name;
    words >> std::hex >> first >> dash >> last >> permissions >> offset >> device >> node >> name;
    if (permissions != "rw-p" || (!name.empty() && name != "[heap]")) continue;
    Span span{(first + kHugePage - 1) / kHugePage * kHugePage, last / kHugePage * kHugePage};
    if (span.start < span.end) spans.push_back(span);
  }
  return spans;
}

}  // namespace

void move_to_huge_pages() {
  for (auto [start, end] : find_spans()) {
    madvise(reinterpret_cast<void*>(start), end - start, kCollapse);
  }
}

}  // namespace glm

#else

namespace glm {

void move_to_huge_pages() {}

}  // namespace glm

#endif
