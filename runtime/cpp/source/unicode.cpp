#include "unicode.hpp"

namespace glm {
namespace {

#include "unicode_table.inc"

constexpr unsigned char kLetter = 1, kNumber = 2, kSpace = 4, kPythonSpace = 8;

bool has(char32_t code_point, unsigned char bits) {
  if (code_point > 0x10FFFF) return false;
  return kBlocks[kBlockOf[code_point >> 8]][code_point & 0xFF] & bits;
}

}  // namespace

bool is_letter(char32_t code_point) { return has(code_point, kLetter); }
bool is_number(char32_t code_point) { return has(code_point, kNumber); }
bool is_space(char32_t code_point) { return has(code_point, kSpace); }
bool is_python_space(char32_t code_point) { return has(code_point, kPythonSpace); }

}  // namespace glm
