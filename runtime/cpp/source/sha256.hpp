// SHA-256 of a file (FIPS 180-4), for those who want every byte compared with the manifest.
#pragma once

#include <filesystem>
#include <string>

namespace glm {

// 64 hexadecimal digits. Throws GLM_BAD_FOLDER: the file cannot be read.
std::string hash_file(const std::filesystem::path& path);

}  // namespace glm
