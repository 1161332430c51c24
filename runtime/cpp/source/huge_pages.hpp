// Moves the memory of this process onto huge pages: decoding reads all weights for every token.
#pragma once

namespace glm {

// Moves what the kernel can move. Does nothing except on Linux. Corresponds to machine.py.
void move_to_huge_pages();

}  // namespace glm
