// What kind of character a code point is; the table is made when the library is built.
#pragma once

namespace glm {

bool is_letter(char32_t code_point);       // general category L
bool is_number(char32_t code_point);       // general category N
bool is_space(char32_t code_point);        // White_Space, a regular expression's \s
bool is_python_space(char32_t code_point);  // what Python's str.strip takes away

}  // namespace glm
