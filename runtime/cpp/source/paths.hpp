// Converts paths. They are UTF-8 in glm.h, for every encoding of the system.
#pragma once

#include <filesystem>
#include <string>
#include <system_error>

namespace glm {

// Throws GLM_BAD_FOLDER if `text` is not UTF-8 on Windows, where paths are Unicode.
std::filesystem::path to_path(const std::string& text);

// For messages.
std::string show_path(const std::filesystem::path& path);

// " (error 2)". A number, because the system's message may not be UTF-8 on Windows.
std::string show_error(const std::error_code& error);

}  // namespace glm
