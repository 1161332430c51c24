// Classes of code points. The build generates the table.
#pragma once

namespace glm {

bool is_letter(char32_t code_point);        // general category L
bool is_number(char32_t code_point);        // general category N
bool is_space(char32_t code_point);         // the property White_Space; \s in a regular expression
bool is_python_space(char32_t code_point);  // characters that Python's str.strip removes

}  // namespace glm
