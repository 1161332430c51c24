// Parses glm_manifest.json as far as running needs it, and checks files. See glm_runtime's
// manifest.py.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "glm.h"
#include "json_reader.hpp"

namespace glm {

struct FileEntry {
  int64_t size_bytes = -1;
  std::string sha256;
};

struct ModelShape {
  int64_t num_layers = 0, num_kv_heads = 0, head_dim = 0;
  int64_t vocab_size = 0;            // number of logits
  int64_t tokenizer_vocab_size = 0;  // larger ids are padding
  int64_t context_length = 0;
  std::string cache_dtype;  // float32, float16 or int8
  std::vector<int64_t> eos_token_ids;

  bool is_eos(int32_t token) const;
};

// An initializer that replaces one of the graph, in float32, or in float16 if `halves` has values.
struct Table {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> floats;
  std::vector<uint16_t> halves;
};

struct Manifest {
  ModelShape model;
  std::map<std::string, FileEntry> files;
  std::string oldest_onnxruntime;
  std::vector<Table> tables;  // not in the file: see rotary.hpp
};

// Throws GLM_BAD_FOLDER or GLM_NEWER_FORMAT.
Manifest parse_manifest(std::string_view json);

// Compares files with their entries. Throws GLM_BAD_FOLDER with a message that names every bad
// file.
void require_files(const std::string& folder, const std::map<std::string, FileEntry>& files,
                   bool has_hashes);

// Parses the entry of one file.
FileEntry read_entry(JsonReader* json);

// Compares the manifest's text with the checksum in it. Throws GLM_BAD_FOLDER.
void require_unchanged(const std::string& folder, const std::string& text);

// Parses the folder's sampling settings. Throws GLM_BAD_FOLDER.
glm_settings parse_generation_config(std::string_view json);

// Reads a whole file. Throws GLM_BAD_FOLDER if it is missing or cannot be read.
std::string read_file(const std::string& folder, const std::string& name);

}  // namespace glm
