#include "random.hpp"

#include <array>
#include <random>

namespace glm {
namespace {

using Word128 = unsigned __int128;

constexpr Word128 kMultiplier =
    static_cast<Word128>(0x2360ED051FC65DA4u) << 64 | 0x4385DF649FCCF645u;

// O'Neill's seed_seq_fe: a pool of four words that every word of the seed changes, and words made
// of it. Source: numpy's documentation of SeedSequence, pcg-random.org/posts/developing-a-seed_seq-
// alternative.html.
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
  Word128 start = static_cast<Word128>(words[0]) << 64 | words[1];
  increment_ = (static_cast<Word128>(words[2]) << 64 | words[3]) << 1 | 1;
  state_ = (increment_ + start) * kMultiplier + increment_;
}

uint64_t Pcg64::next() {
  state_ = state_ * kMultiplier + increment_;
  auto folded = static_cast<uint64_t>(state_ >> 64) ^ static_cast<uint64_t>(state_);
  auto turn = static_cast<unsigned>(state_ >> 122);
  return folded >> turn | folded << (-turn & 63);
}

double Pcg64::uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

uint64_t draw_seed() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

}  // namespace glm
