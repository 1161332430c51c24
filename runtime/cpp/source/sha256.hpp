// SHA-256 of a file (FIPS 180-4).
#pragma once

#include <filesystem>
#include <istream>
#include <string>

namespace glm {

// Returns 64 hexadecimal digits. Throws GLM_BAD_FOLDER if the file cannot be read.
std::string hash_file(const std::filesystem::path& path);

// Hashes a stream to its end. `name` is its name in error messages.
std::string hash_stream(std::istream* stream, const std::string& name);

}  // namespace glm
