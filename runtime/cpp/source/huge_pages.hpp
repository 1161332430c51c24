// Moves what this process holds onto huge pages: decoding reads all weights, page by page.
#pragma once

namespace glm {

// As far as the kernel can; as glm_runtime's huge_pages.py. Nothing happens but on Linux.
void move_to_huge_pages();

}  // namespace glm
