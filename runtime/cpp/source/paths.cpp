#include "paths.hpp"

#include "errors.hpp"
#include "utf8.hpp"

namespace glm {

std::filesystem::path to_path(const std::string& text) {
#ifdef _WIN32  // on other systems a path may have any bytes
  if (find_invalid_utf8(text) != std::string::npos) {
    throw Error(GLM_BAD_FOLDER, "the path of the folder is not valid UTF-8; convert it to UTF-8.");
  }
#endif
  // On Windows, "/" does not separate folders after \\?\.
  return std::filesystem::u8path(text).make_preferred();
}

std::string show_path(const std::filesystem::path& path) { return path.u8string(); }

std::string show_error(const std::error_code& error) {
  return " (error " + std::to_string(error.value()) + ")";
}

}  // namespace glm
