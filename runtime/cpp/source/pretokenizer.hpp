// Cuts text into the pieces that byte pairs are joined within, as the pattern of a tokenizer says.
//
// Patterns are matched by hand, each known by its exact text: no engine for regular expressions,
// and no piece costs more than its length.
#pragma once

#include <optional>
#include <string_view>

namespace glm {

enum class Pattern {
  kNone,  // the text is one piece
  kGlm4,  // of GLM-4's tokenizer.json: as cl100k's, numbers in threes
  kGpt2,  // of ByteLevel with use_regex
};

// The pattern with this text, if it is a known one.
std::optional<Pattern> find_pattern(std::string_view regex);

// Bytes of the first piece; the text is valid UTF-8 and not empty.
size_t measure_piece(Pattern pattern, std::string_view text);

}  // namespace glm
