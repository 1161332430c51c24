// Reads the arguments of a Python call as a JSON object, and writes JSON as Python literals.
// Corresponds to python_literals.py in glm_runtime. Nothing is evaluated.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace glm {

// Removes the arguments after the opening parenthesis, and the closing one. Returns the JSON text of
// an object that begins with `json`; none if they are not literals that JSON can have.
//
// `positional` are the names of parameters that may be given without a name, in order. `before` is
// the name that `json` has already, or empty.
std::optional<std::string> take_python_arguments(std::vector<std::string_view> positional,
                                                 const std::string& before, std::string json,
                                                 std::string_view* text);

// The keys of a JSON object and the JSON text of their values; none if the text is no object.
using Entries = std::vector<std::pair<std::string, std::string>>;
std::optional<Entries> read_entries(const std::string& json);

// Writes a value of JSON as a Python literal, with this quote around strings. The JSON must be valid.
std::string write_python_literal(std::string_view json, char quote);

}  // namespace glm
