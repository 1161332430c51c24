#include "rotary.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "errors.hpp"
#include "json_reader.hpp"

namespace glm {
namespace {

constexpr int64_t kMostPositions = int64_t{1} << 22;
constexpr int64_t kMaxContext = std::numeric_limits<int32_t>::max();
constexpr double kTwoPi = 6.283185307179586, kBetaFast = 32, kBetaSlow = 1;

// What the manifest says about the folder's tables.
struct Rope {
  double theta = 0;
  std::vector<float> periods;  // theta ^ (2 i / R) of each pair
  int64_t original_context = 0;
  std::map<std::string, std::pair<std::vector<int64_t>, int64_t>> tables;  // shape and bytes
};

// Settings of YaRN; `factor` is 1 without it.
struct Yarn {
  double factor, original_context, attention_factor;
};

[[noreturn]] void refuse_folder() {
  throw Error(GLM_BAD_FOLDER,
              "glm_manifest.json has no rotary settings, which rope_factor needs, because an older "
              "glm-export wrote it; export the checkpoint again.");
}

void read_rope(JsonReader* json, Rope* rope) {
  json->object([&](const std::string& key) {
    if (key == "theta") {
      rope->theta = json->number();
    } else if (key == "periods") {
      json->array([&] { rope->periods.push_back(static_cast<float>(json->number())); });
    } else if (key == "original_context") {
      rope->original_context = json->integer();
    } else {
      json->skip();
    }
  });
}

void read_tensor(JsonReader* json, Rope* rope) {
  std::string name;
  std::vector<int64_t> shape;
  int64_t size_bytes = 0;
  json->object([&](const std::string& key) {
    if (key == "name") {
      name = json->string();
    } else if (key == "shape") {
      json->array([&] { shape.push_back(json->integer()); });
    } else if (key == "size_bytes") {
      size_bytes = json->integer();
    } else {
      json->skip();
    }
  });
  if (name.compare(0, 3, "cos") == 0 || name.compare(0, 3, "sin") == 0) {
    rope->tables[name] = {shape, size_bytes};
  }
}

Rope parse_rope(std::string_view text, const ModelShape& model) {
  JsonReader json(text, "glm_manifest.json");
  Rope rope;
  json.object([&](const std::string& key) {
    if (key == "model") {
      json.object([&](const std::string& name) {
        if (name == "rope" && !json.take_null()) return read_rope(&json, &rope);
        if (name != "rope") json.skip();
      });
    } else if (key == "tensors") {
      json.array([&] { read_tensor(&json, &rope); });
    } else {
      json.skip();
    }
  });
  auto is_positive = [](float period) { return period > 0 && std::isfinite(period); };
  bool is_usable = std::all_of(rope.periods.begin(), rope.periods.end(), is_positive) &&
                   !rope.periods.empty() && rope.theta > 1 && std::isfinite(rope.theta) &&
                   2 * static_cast<int64_t>(rope.periods.size()) <= model.head_dim &&
                   rope.original_context > 0 && rope.original_context <= kMaxContext;
  if (!is_usable) refuse_folder();
  return rope;
}

// Index of the pair with `turns` rotations in the original context.
double find_pair(const Rope& rope, const Yarn& yarn, double turns) {
  double rotary_dim = 2.0 * static_cast<double>(rope.periods.size());
  double ratio = yarn.original_context / (turns * kTwoPi);
  return rotary_dim * std::log(ratio) / (2 * std::log(rope.theta));
}

// Radians per position of each pair.
std::vector<float> find_frequencies(const Rope& rope, const Yarn& yarn) {
  std::vector<float> frequencies;
  double most = 2.0 * static_cast<double>(rope.periods.size()) - 1;
  double first = std::max(std::floor(find_pair(rope, yarn, kBetaFast)), 0.0);
  double last = std::min(std::ceil(find_pair(rope, yarn, kBetaSlow)), most);
  if (first == last) last += 0.001;
  for (size_t i = 0; i < rope.periods.size(); ++i) {
    float frequency = 1.0F / rope.periods[i];
    if (yarn.factor > 1) {
      float part = (static_cast<float>(i) - static_cast<float>(first)) /
                   static_cast<float>(last - first);
      float kept = 1.0F - std::clamp(part, 0.0F, 1.0F);
      float slowed = 1.0F / (static_cast<float>(yarn.factor) * rope.periods[i]);
      frequency = slowed * (1.0F - kept) + frequency * kept;
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

// Rounds to nearest, ties to even. Cosines and sines have no infinity or NaN, and YaRN makes them
// at most 2.6.
uint16_t narrow(float value) {
  constexpr float kSmallestNormal = 6.103515625e-05F, kSubnormalStep = 5.9604644775390625e-08F;
  uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  float magnitude = std::fabs(value);
  if (magnitude < kSmallestNormal) {
    return static_cast<uint16_t>(sign | std::lrintf(magnitude / kSubnormalStep));
  }
  uint32_t bits = 0;
  std::memcpy(&bits, &magnitude, sizeof bits);
  bits += 0xFFFU + ((bits >> 13) & 1U);
  return static_cast<uint16_t>(sign | ((bits >> 13) - (112U << 10)));
}

// A table [count, pairs] of `turn`, std::cos or std::sin, at every `step`-th position. `is_exact`:
// angles are computed in double precision, and not as transformers does.
Table make_table(const std::string& name, const std::vector<float>& frequencies, int64_t count,
                 int64_t step, bool is_exact, double scale, double (*turn)(double)) {
  Table table;
  table.name = name;
  table.shape = {count, static_cast<int64_t>(frequencies.size())};
  table.floats.reserve(static_cast<size_t>(count) * frequencies.size());
  for (int64_t row = 0; row < count; ++row) {
    for (float frequency : frequencies) {
      double exact = static_cast<double>(row * step) * static_cast<double>(frequency);
      double angle = is_exact ? exact : static_cast<double>(static_cast<float>(row) * frequency);
      double value = turn(angle);
      table.floats.push_back(is_exact ? static_cast<float>(scale * value)
                                      : static_cast<float>(value) * static_cast<float>(scale));
    }
  }
  return table;
}

double take_cosine(double angle) { return std::cos(angle); }
double take_sine(double angle) { return std::sin(angle); }

std::vector<Table> make_tables(const Rope& rope, const Yarn& yarn, int64_t length) {
  std::vector<float> frequencies = find_frequencies(rope, yarn);
  std::vector<Table> tables;
  bool is_whole = rope.tables.count("cos") > 0 && rope.tables.count("sin") > 0;
  int64_t step = 0;
  if (auto fine = rope.tables.find("cos_fine"); fine != rope.tables.end()) {
    step = fine->second.first.empty() ? 0 : fine->second.first[0];
  }
  if (!is_whole && (step < 1 || step > kMostPositions)) refuse_folder();
  const std::pair<const char*, double (*)(double)> parts[] = {{"cos", take_cosine},
                                                              {"sin", take_sine}};
  for (auto [name, turn] : parts) {
    const std::string prefix = name;
    double scale = yarn.attention_factor;
    if (is_whole) {
      tables.push_back(make_table(prefix, frequencies, length, 1, false, scale, turn));
      continue;
    }
    int64_t coarse = (length + step - 1) / step;
    tables.push_back(make_table(prefix + "_coarse", frequencies, coarse, step, true, scale, turn));
    tables.push_back(make_table(prefix + "_fine", frequencies, step, 1, true, 1, turn));
  }
  return tables;
}

// Converts a table to float16 if the graph's own table is float16.
void match_type(const Rope& rope, Table* table) {
  auto stored = rope.tables.find(table->name);
  if (stored == rope.tables.end()) refuse_folder();
  int64_t elements = 1;
  for (int64_t size : stored->second.first) {
    if (size < 1 || size > kMaxContext) refuse_folder();
    elements *= std::min(size, kMostPositions);
  }
  if (stored->second.second != 2 * elements) return;
  table->halves.resize(table->floats.size());
  std::transform(table->floats.begin(), table->floats.end(), table->halves.begin(), narrow);
  table->floats.clear();
}

}  // namespace

void scale_rope(std::string_view json, const RopeScaling& scaling, Manifest* manifest) {
  bool is_factor = scaling.factor >= 1 && scaling.factor < static_cast<double>(kMostPositions);
  bool is_context = scaling.original_context >= 0 && scaling.original_context <= kMaxContext;
  if (!is_factor || !is_context) {
    throw Error(GLM_BAD_SETTING,
                "rope_factor or rope_original_context is out of range; choose a factor such as 4, "
                "and 0 or a number such as 32768 as the original context.");
  }
  Rope rope = parse_rope(json, manifest->model);
  Yarn yarn{scaling.factor, static_cast<double>(rope.original_context), 1};
  int64_t context_length = rope.original_context;
  if (scaling.factor > 1) {
    if (scaling.original_context > 0) {
      yarn.original_context = static_cast<double>(scaling.original_context);
    }
    yarn.attention_factor = 0.1 * std::log(scaling.factor) + 1.0;
    double stretched = std::min(yarn.factor * yarn.original_context, 1e15);
    context_length = std::max(context_length, static_cast<int64_t>(stretched));
  }
  if (context_length > kMostPositions) {
    throw Error(GLM_BAD_SETTING, "rope_factor would make a context of " +
                                     std::to_string(context_length) + " tokens where at most " +
                                     std::to_string(kMostPositions) +
                                     " are supported; choose a smaller factor.");
  }
  manifest->model.context_length = context_length;
  manifest->tables = make_tables(rope, yarn, context_length);
  for (Table& table : manifest->tables) match_type(rope, &table);
}

}  // namespace glm
