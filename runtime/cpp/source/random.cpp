#include "random.hpp"

#include <array>
#include <random>

namespace glm {
namespace {

constexpr Word128 kMultiplier{0x2360ED051FC65DA4u, 0x4385DF649FCCF645u};

// Multiplies halves, because MSVC has no 128-bit integer.
Word128 multiply_words(uint64_t left, uint64_t right) {
  uint64_t low_left = left & UINT32_MAX, high_left = left >> 32;
  uint64_t low_right = right & UINT32_MAX, high_right = right >> 32;
  uint64_t low = low_left * low_right;
  uint64_t middle = high_left * low_right + (low >> 32);  // below 2^64: (2^32-1)^2 + 2^32-1
  uint64_t other = low_left * high_right + (middle & UINT32_MAX);
  return {high_left * high_right + (middle >> 32) + (other >> 32),
          other << 32 | (low & UINT32_MAX)};
}

Word128 multiply(Word128 left, Word128 right) {  // modulo 2^128
  Word128 product = multiply_words(left.low, right.low);
  product.high += left.high * right.low + left.low * right.high;
  return product;
}

Word128 add(Word128 left, Word128 right) {
  uint64_t low = left.low + right.low;
  return {left.high + right.high + (low < left.low ? 1 : 0), low};
}

// O'Neill's seed_seq_fe: mixes the words of the seed into a pool of four words, and generates words
// from the pool. Source: numpy's documentation of SeedSequence, and
// pcg-random.org/posts/developing-a-seed_seq-alternative.html.
class SeedSequence {
 public:
  explicit SeedSequence(uint64_t seed) {
    std::array<uint32_t, 4> words{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
    for (size_t i = 0; i < pool_.size(); ++i) pool_[i] = hash(words[i]);
    for (size_t from = 0; from < pool_.size(); ++from) {
      for (size_t to = 0; to < pool_.size(); ++to) {
        if (from != to) pool_[to] = mix(pool_[to], hash(pool_[from]));
      }
    }
  }

  std::array<uint64_t, 4> generate() const {
    std::array<uint64_t, 4> words{};
    uint32_t constant = 0x8B51F9DD;
    for (size_t i = 0; i < 2 * words.size(); ++i) {
      uint32_t value = pool_[i % pool_.size()] ^ constant;
      constant *= 0x58F38DED;
      value *= constant;
      value ^= value >> 16;
      words[i / 2] |= static_cast<uint64_t>(value) << (32 * (i % 2));
    }
    return words;
  }

 private:
  uint32_t hash(uint32_t value) {
    value ^= constant_;
    constant_ *= 0x931E8875;
    value *= constant_;
    return value ^ value >> 16;
  }

  static uint32_t mix(uint32_t left, uint32_t right) {
    uint32_t value = 0xCA01F9DD * left - 0x4973F715 * right;
    return value ^ value >> 16;
  }

  std::array<uint32_t, 4> pool_{};
  uint32_t constant_ = 0x43B0D7E5;
};

}  // namespace

Pcg64::Pcg64(uint64_t seed) {
  std::array<uint64_t, 4> words = SeedSequence(seed).generate();
  Word128 start{words[0], words[1]};
  increment_ = {words[2] << 1 | words[3] >> 63, words[3] << 1 | 1};
  state_ = add(multiply(add(increment_, start), kMultiplier), increment_);
}

uint64_t Pcg64::next() {
  state_ = add(multiply(state_, kMultiplier), increment_);
  uint64_t folded = state_.high ^ state_.low;
  auto turn = static_cast<unsigned>(state_.high >> 58);
  return folded >> turn | folded << ((64 - turn) & 63);
}

double Pcg64::uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

uint64_t draw_seed() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

}  // namespace glm
