// SHA-256 of a file (FIPS 180-4), for those who want every byte compared with the manifest.
#pragma once

#include <filesystem>
#include <istream>
#include <string>

namespace glm {

// 64 hexadecimal digits. Throws GLM_BAD_FOLDER: the file cannot be read.
std::string hash_file(const std::filesystem::path& path);

// Of a stream to its end; `name` is for errors.
std::string hash_stream(std::istream* stream, const std::string& name);

}  // namespace glm
