// Paths: UTF-8 in glm.h, whatever the system's own encoding is.
#pragma once

#include <filesystem>
#include <string>
#include <system_error>

namespace glm {

// Throws GLM_BAD_FOLDER: on Windows, where a path is Unicode, `text` is not UTF-8.
std::filesystem::path to_path(const std::string& text);

// For sentences.
std::string show_path(const std::filesystem::path& path);

// " (error 2)": a number, since on Windows the system's words need not be UTF-8.
std::string show_error(const std::error_code& error);

}  // namespace glm
