#include "prepared.hpp"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "errors.hpp"
#include "graph.hpp"
#include "json_reader.hpp"
#include "onnxruntime_library.hpp"
#include "paths.hpp"
#include "processor.hpp"
#include "sha256.hpp"

namespace glm {
namespace {

namespace fs = std::filesystem;

constexpr char kRecordName[] = "glm_prepared.json";
constexpr const char* kGraphFiles[] = {"model.onnx", "model.onnx.data"};

// SHA-256 of the original graph, and of the processor and version of ONNX Runtime.
struct Origin {
  std::string folder, machine;
};

std::string hash_text(const std::string& text) {
  std::istringstream stream(text);
  return hash_stream(&stream, "a string");
}

Origin find_origin(const Manifest& manifest) {
  std::string hashes;
  for (const char* name : kGraphFiles) {
    auto file = manifest.files.find(name);
    if (file != manifest.files.end()) hashes += file->second.sha256;
  }
  std::string version = find_library().GetVersionString(), processor = describe_processor();
  if (processor.empty()) {  // otherwise all such machines would seem to be the same
    throw Error(GLM_UNSUPPORTED,
                "a prepared copy works on one kind of processor, but the system does not say which "
                "processor this is; use the folder without a prepared copy.");
  }
  return {hash_text(hashes), hash_text(version + "\n" + processor)};
}

[[noreturn]] void refuse(const std::string& prepared, const std::string& problem) {
  throw Error(GLM_BAD_FOLDER, prepared + " " + problem + "; prepare it again.");
}

struct Record {
  Origin origin;
  std::map<std::string, FileEntry> files;
};

Record read_record(const std::string& prepared) {
  std::string text = read_file(prepared, kRecordName);
  JsonReader json(text, kRecordName);
  Record record;
  json.object([&](const std::string& key) {
    if (key == "folder") {
      record.origin.folder = json.string();
    } else if (key == "machine") {
      record.origin.machine = json.string();
    } else if (key == "files") {
      json.object([&](const std::string& name) { record.files[name] = read_entry(&json); });
    } else {
      json.skip();
    }
  });
  json.finish();
  return record;
}

// The record of the copy contains the hashes of the manifest, so the graph must have these hashes.
void require_graph(const std::string& folder, const Manifest& manifest) {
  std::map<std::string, FileEntry> files;
  for (const char* name : kGraphFiles) {
    auto file = manifest.files.find(name);
    if (file != manifest.files.end()) files.insert(*file);
  }
  if (files.count(kGraphFiles[0]) == 0) {
    throw Error(GLM_BAD_FOLDER,
                folder + " has a manifest without model.onnx; export the folder again.");
  }
  require_files(folder, files, true);
}

void write_record(const fs::path& folder, const Origin& origin) {
  std::ofstream file(folder / kRecordName, std::ios::binary);
  file << "{\n  \"folder\": \"" << origin.folder << "\",\n  \"machine\": \"" << origin.machine
       << "\",\n  \"files\": {";
  const char* comma = "";
  for (const char* name : kGraphFiles) {
    std::error_code error;
    uintmax_t size = fs::file_size(folder / name, error);
    // A tiny model has its weights in the graph file.
    if (error == std::errc::no_such_file_or_directory) continue;
    if (error) refuse(show_path(folder / name), "cannot be accessed" + show_error(error));
    file << comma << "\n    \"" << name << "\": {\"size_bytes\": " << size << ", \"sha256\": \""
         << hash_file(folder / name) << "\"}";
    comma = ",";
  }
  file << "\n  }\n}\n";
  file.close();
  if (!file) {
    throw Error(GLM_BAD_SETTING,
                show_path(folder) + " cannot be written; check the free disk space.");
  }
}

}  // namespace

void check_prepared(const std::string& prepared, const Manifest& manifest, bool has_hashes) {
  Record record = read_record(prepared);
  Origin expected = find_origin(manifest);
  if (record.origin.folder != expected.folder) refuse(prepared, "was made from another folder");
  if (record.origin.machine != expected.machine) {
    refuse(prepared, "was made for another processor or version of ONNX Runtime");
  }
  if (record.files.count(kGraphFiles[0]) == 0) refuse(prepared, "does not list model.onnx");
  require_files(prepared, record.files, has_hashes);
}

void write_prepared(const std::string& folder, const Manifest& manifest, const std::string& output,
                    int threads) {
  require_graph(folder, manifest);
  Origin origin = find_origin(manifest);
  fs::path made = to_path(output);
  std::error_code error;
  if (!fs::create_directory(made, error)) {
    throw Error(GLM_BAD_SETTING, output + " cannot be created" +
                                     (error ? show_error(error) : " (it exists)") +
                                     "; choose a new name in a folder that can be written.");
  }
  try {
    write_packed_graph(to_path(folder) / kGraphFiles[0], made / kGraphFiles[0], threads);
    write_record(made, origin);  // written last: a copy without a record is refused
  } catch (...) {
    fs::remove_all(made, error);
    throw;
  }
}

}  // namespace glm
