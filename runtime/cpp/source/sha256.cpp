#include "sha256.hpp"

#include <array>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <vector>

#include "errors.hpp"
#include "paths.hpp"

namespace glm {
namespace {

constexpr size_t kBlock = 64, kBuffer = 1 << 20;

// The first 32 fractional bits of the square or cube roots of the first primes. They are exact,
// because a double has more bits than are used.
struct Constants {
  std::array<uint32_t, 8> start;
  std::array<uint32_t, 64> rounds;

  Constants() {
    size_t count = 0;
    for (int n = 2; count < rounds.size(); ++n) {
      bool is_prime = true;
      for (int d = 2; d * d <= n; ++d) is_prime = is_prime && n % d != 0;
      if (!is_prime) continue;
      if (count < start.size()) start[count] = fraction(std::sqrt(static_cast<double>(n)));
      rounds[count++] = fraction(std::cbrt(static_cast<double>(n)));
    }
  }

  static uint32_t fraction(double root) {
    return static_cast<uint32_t>((root - std::floor(root)) * 4294967296.0);
  }
};

uint32_t rotate_right(uint32_t value, int count) { return value >> count | value << (32 - count); }

class Sha256 {
 public:
  void add_block(const unsigned char* block) {
    std::array<uint32_t, 64> words;
    for (int i = 0; i < 16; ++i) {
      words[i] = static_cast<uint32_t>(block[4 * i]) << 24 | block[4 * i + 1] << 16 |
                 block[4 * i + 2] << 8 | block[4 * i + 3];
    }
    for (int i = 16; i < 64; ++i) {
      uint32_t a = words[i - 15], b = words[i - 2];
      words[i] = words[i - 16] + (rotate_right(a, 7) ^ rotate_right(a, 18) ^ a >> 3) +
                 words[i - 7] + (rotate_right(b, 17) ^ rotate_right(b, 19) ^ b >> 10);
    }
    std::array<uint32_t, 8> v = state_;
    for (int i = 0; i < 64; ++i) step(&v, constants_.rounds[i] + words[i]);
    for (int i = 0; i < 8; ++i) state_[i] += v[i];
  }

  std::string hex() const {
    std::string text;
    for (uint32_t word : state_) {
      for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[word >> shift & 15];
    }
    return text;
  }

 private:
  static void step(std::array<uint32_t, 8>* v, uint32_t added) {
    auto& [a, b, c, d, e, f, g, h] = *v;
    uint32_t first = h + (rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25)) +
                     ((e & f) ^ (~e & g)) + added;
    uint32_t second = (rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22)) +
                      ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + first, d = c, c = b, b = a, a = first + second;
  }

  const Constants constants_;
  std::array<uint32_t, 8> state_ = constants_.start;
};

}  // namespace

std::string hash_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return hash_stream(&file, show_path(path));
}

std::string hash_stream(std::istream* stream, const std::string& name) {
  std::istream& file = *stream;
  std::vector<unsigned char> buffer(kBuffer + 2 * kBlock);
  Sha256 sha;
  uint64_t length = 0;
  size_t count = 0;
  while (file) {
    file.read(reinterpret_cast<char*>(buffer.data()), kBuffer);
    count = static_cast<size_t>(file.gcount());
    length += count;
    if (count < kBuffer) break;
    for (size_t i = 0; i < count; i += kBlock) sha.add_block(&buffer[i]);
  }
  if (file.bad() || !file.eof()) {
    throw Error(GLM_BAD_FOLDER, name + " cannot be read; check its permissions and the disk.");
  }
  buffer[count++] = 0x80;
  while (count % kBlock != kBlock - 8) buffer[count++] = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    buffer[count++] = static_cast<unsigned char>(length * 8 >> shift);
  }
  for (size_t i = 0; i < count; i += kBlock) sha.add_block(&buffer[i]);
  return sha.hex();
}

}  // namespace glm
