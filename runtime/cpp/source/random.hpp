// numpy's generator: PCG64 (O'Neill 2014, XSL-RR 128/64), seeded by SeedSequence, so that a seed
// gives the same draws as in Python.
#pragma once

#include <cstdint>

namespace glm {

class Pcg64 {
 public:
  explicit Pcg64(uint64_t seed);

  uint64_t next();
  double uniform();  // in [0, 1), 53 bits

 private:
  unsigned __int128 state_ = 0, increment_ = 0;
};

uint64_t draw_seed();  // another one every time

}  // namespace glm
