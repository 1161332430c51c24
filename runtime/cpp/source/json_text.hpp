// Writes JSON as Python's json.dumps does, with the spaces of the models' training data. Numbers
// keep the form that they have.
#pragma once

#include <optional>
#include <string>

#include "json_reader.hpp"

namespace glm {

// Reads the next value and writes it; without an indentation on one line. Throws like JsonReader.
std::string rewrite_json(JsonReader* json, std::optional<int> indent);

std::string quote_json(std::string_view text);

}  // namespace glm
