// numpy's random generator: PCG64 (O'Neill 2014, XSL-RR 128/64), seeded by SeedSequence. A seed
// gives the same numbers as in Python.
#pragma once

#include <cstdint>

namespace glm {

struct Word128 {
  uint64_t high = 0, low = 0;
};

class Pcg64 {
 public:
  explicit Pcg64(uint64_t seed);

  uint64_t next();
  double uniform();  // in [0, 1), 53 bits

 private:
  Word128 state_, increment_;
};

uint64_t draw_seed();  // a random seed

}  // namespace glm
