#include "manifest.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "errors.hpp"
#include "json_reader.hpp"
#include "paths.hpp"
#include "settings.hpp"
#include "sha256.hpp"

namespace glm {
namespace {

namespace fs = std::filesystem;

constexpr char kManifestName[] = "glm_manifest.json", kFormat[] = "glm-export-folder";
constexpr int64_t kFormatVersion = 1;
constexpr int64_t kMaxCount = std::numeric_limits<int32_t>::max();
constexpr int kTransformersTopK = 50;  // default of transformers if generation_config.json has none

void require(bool is_met, const std::string& found, const std::string& expected) {
  if (is_met) return;
  throw Error(GLM_BAD_FOLDER, std::string(kManifestName) + ": " + found + " where " + expected +
                                  " is expected; export the folder again.");
}

// Reads a number of tokens from generation_config.json.
int32_t read_limit(JsonReader* json, const std::string& key) {
  int64_t value = json->integer();
  if (value > 0) return static_cast<int32_t>(std::min(value, kMaxCount));
  throw Error(GLM_BAD_FOLDER, "generation_config.json: " + key + " is " + std::to_string(value) +
                                  " where 1 or more is expected; correct it in the checkpoint and "
                                  "export again.");
}

bool is_plain_name(const std::string& name) {
  bool is_plain = !name.empty() && name != "." && name != ".." && name != kManifestName;
  return is_plain && name.find_first_of(std::string("/\\:\0", 4)) == std::string::npos;
}

ModelShape read_model(JsonReader* json) {
  ModelShape model;
  const std::map<std::string, int64_t*> counts = {
      {"num_layers", &model.num_layers},
      {"num_kv_heads", &model.num_kv_heads},
      {"head_dim", &model.head_dim},
      {"vocab_size", &model.vocab_size},
      {"context_length", &model.context_length},
      {"tokenizer_vocab_size", &model.tokenizer_vocab_size}};
  json->object([&](const std::string& key) {
    if (auto found = counts.find(key); found != counts.end()) {
      *found->second = json->integer();
    } else if (key == "cache_dtype") {
      model.cache_dtype = json->string();
    } else if (key == "eos_token_ids") {
      json->array([&] { model.eos_token_ids.push_back(json->integer()); });
    } else {
      json->skip();
    }
  });
  for (const auto& [name, count] : counts) {
    require(*count > 0 && *count <= kMaxCount, name + " is " + std::to_string(*count),
            "a number from 1 to below 2^31");
  }
  return model;
}

void check_model(const ModelShape& model) {
  for (int64_t token : model.eos_token_ids) {
    require(token >= 0 && token < model.vocab_size, "eos_token_ids holds " + std::to_string(token),
            "ids below " + std::to_string(model.vocab_size));
  }
  require(model.tokenizer_vocab_size <= model.vocab_size,
          "tokenizer_vocab_size is " + std::to_string(model.tokenizer_vocab_size),
          "at most vocab_size = " + std::to_string(model.vocab_size));
  const std::string& dtype = model.cache_dtype;
  require(dtype == "float32" || dtype == "float16" || dtype == "int8",
          "cache_dtype is '" + dtype + "'", "float32, float16 or int8");
}

void check_version(int64_t version) {
  require(version >= 1, "format_version is " + std::to_string(version), "1 or more");
  if (version <= kFormatVersion) return;
  throw Error(GLM_NEWER_FORMAT, std::string(kManifestName) + " has format_version " +
                                    std::to_string(version) +
                                    ", but this library reads versions up to " +
                                    std::to_string(kFormatVersion) + "; use a newer library.");
}

// Only links are resolved, because not every path can be resolved on Windows.
bool leaves(const fs::path& path, const fs::path& folder) {
  std::error_code error;
  if (!fs::is_symlink(path, error)) return false;
  fs::path place = fs::canonical(path, error).parent_path();
  return error || place != fs::canonical(folder, error);
}

// Describes what is wrong with a file; empty if nothing is.
std::string describe_problem(const fs::path& folder, const std::string& name,
                             const FileEntry& entry, bool has_hashes) {
  std::error_code error;
  fs::path path = folder / to_path(name);
  if (!fs::is_regular_file(path, error)) return name + " is missing";
  if (leaves(path, folder)) return name + " is a link to a file outside of the folder";
  auto size = static_cast<int64_t>(fs::file_size(path, error));
  if (error) return name + " cannot be accessed" + show_error(error);
  if (size != entry.size_bytes) {
    return name + " has " + std::to_string(size) + " bytes, the manifest says " +
           std::to_string(entry.size_bytes);
  }
  if (has_hashes && hash_file(path) != entry.sha256) {
    return name + " was changed: its SHA-256 differs from the manifest";
  }
  return "";
}

}  // namespace

FileEntry read_entry(JsonReader* json) {
  FileEntry entry;
  json->object([&](const std::string& key) {
    if (key == "size_bytes") {
      entry.size_bytes = json->integer();
    } else if (key == "sha256") {
      entry.sha256 = json->string();
    } else {
      json->skip();
    }
  });
  return entry;
}

bool ModelShape::is_eos(int32_t token) const {
  return std::find(eos_token_ids.begin(), eos_token_ids.end(), token) != eos_token_ids.end();
}

Manifest parse_manifest(std::string_view text) {
  JsonReader json(text, kManifestName);
  Manifest manifest;
  std::string format;
  int64_t version = 0;
  JsonReader model = json, files = json;  // parsed after the version was checked
  bool has_model = false, has_files = false;
  json.object([&](const std::string& key) {
    if (key == "format") {
      format = json.string();
      return;
    }
    if (key == "format_version") {
      version = json.integer();
      return;
    }
    if (key == "oldest_onnxruntime") {
      manifest.oldest_onnxruntime = json.string();
      return;
    }
    if (key == "model") model = json, has_model = true;
    if (key == "files") files = json, has_files = true;
    json.skip();
  });
  json.finish();
  require(format == kFormat, "format is '" + format + "'", std::string("'") + kFormat + "'");
  check_version(version);
  require(has_model && has_files, "model or files is missing", "both of them");
  manifest.model = read_model(&model);
  check_model(manifest.model);
  files.object([&](const std::string& name) {
    require(is_plain_name(name), "files contains '" + name + "'", "a file name without a folder");
    manifest.files[name] = read_entry(&files);
  });
  return manifest;
}

void require_files(const std::string& folder, const std::map<std::string, FileEntry>& files,
                   bool has_hashes) {
  std::string problems;
  for (const auto& [name, entry] : files) {
    std::string problem = describe_problem(to_path(folder), name, entry, has_hashes);
    if (!problem.empty()) problems += (problems.empty() ? "" : "; ") + problem;
  }
  if (problems.empty()) return;
  throw Error(GLM_BAD_FOLDER,
              folder + " is damaged: " + problems + "; copy the folder or export again.");
}

// glm-export writes one key per line. The line of the checksum has the hash of all other lines.
void require_unchanged(const std::string& folder, const std::string& text) {
  constexpr std::string_view kStart = "\n  \"checksum\": \"";
  size_t start = text.find(kStart), end = text.find('\n', start + 1);
  bool is_there = start != std::string::npos && end != std::string::npos;
  std::string rest = is_there ? text.substr(0, start) + text.substr(end) : text;
  std::istringstream stream(rest);
  std::string hash = hash_stream(&stream, kManifestName);
  if (is_there && text.compare(start + kStart.size(), hash.size(), hash) == 0) return;
  throw Error(GLM_BAD_FOLDER, folder + " is damaged: " + kManifestName +
                                  " was changed: its text or checksum is not what glm-export "
                                  "wrote; copy the folder or export again.");
}

glm_settings parse_generation_config(std::string_view text) {
  JsonReader json(text, "generation_config.json");
  glm_settings s = make_neutral_settings();
  s.temperature = 1;
  double top_k = kTransformersTopK;
  bool is_sampled = false;
  const std::map<std::string, double*> numbers = {{"temperature", &s.temperature},
                                                  {"top_k", &top_k},
                                                  {"top_p", &s.top_p},
                                                  {"min_p", &s.min_p},
                                                  {"repetition_penalty", &s.repetition_penalty}};
  int32_t max_new_tokens = 0, max_length = 0;
  json.object([&](const std::string& key) {
    auto found = numbers.find(key);
    if (json.take_null()) return;
    if (key == "max_new_tokens") {
      max_new_tokens = read_limit(&json, key);
    } else if (key == "max_length") {
      max_length = read_limit(&json, key);
    } else if (key == "do_sample") {
      is_sampled = json.boolean();
    } else if (found != numbers.end()) {
      *found->second = json.number();
    } else {
      json.skip();
    }
  });
  json.finish();
  if (!is_sampled) {  // greedy decoding uses only the repetition penalty
    double repetition_penalty = s.repetition_penalty;
    s = make_neutral_settings();
    s.repetition_penalty = repetition_penalty;
  } else {
    bool is_count = top_k >= 0 && top_k < static_cast<double>(kMaxCount);
    s.top_k = is_count ? static_cast<int32_t>(top_k) : -1;
  }
  s.max_new_tokens = max_new_tokens;
  s.max_length = max_length;
  try {
    check_settings(s);
  } catch (const Error& error) {
    throw Error(GLM_BAD_FOLDER, std::string("generation_config.json: ") + error.what());
  }
  return s;
}

std::string read_file(const std::string& folder, const std::string& name) {
  std::error_code error;
  fs::path place = to_path(folder), path = place / to_path(name);
  if (!fs::is_directory(place, error)) {
    throw Error(GLM_BAD_FOLDER,
                folder + " is not a folder; give the folder that glm-export wrote.");
  }
  if (!fs::is_regular_file(path, error)) {
    throw Error(GLM_BAD_FOLDER, folder + " has no " + name +
                                    "; give the folder that glm-export wrote, or export again.");
  }
  uintmax_t size = fs::file_size(path, error);
  if (error) {
    throw Error(GLM_BAD_FOLDER, show_path(path) + " cannot be accessed" + show_error(error) +
                                    "; check its permissions.");
  }
  std::ifstream file(path, std::ios::binary);
  std::string content(static_cast<size_t>(size), '\0');
  file.read(content.data(), static_cast<std::streamsize>(content.size()));
  if (file && static_cast<size_t>(file.gcount()) == content.size()) return content;
  throw Error(GLM_BAD_FOLDER, show_path(path) + " cannot be read; check its permissions.");
}

}  // namespace glm
