// Splits text into pretokens by the regular expression of a tokenizer. BPE merges do not cross
// their borders.
//
// The supported expressions are recognized by their exact text and matched by code of their own,
// without a regular-expression engine, in linear time.
#pragma once

#include <optional>
#include <string_view>

namespace glm {

enum class Pattern {
  kNone,  // the whole text is one pretoken
  kGlm4,  // of GLM-4's tokenizer.json; like cl100k, with up to three digits in a pretoken
  kGpt2,  // of a ByteLevel pre-tokenizer with use_regex
};

// Finds the pattern with this text, if it is supported.
std::optional<Pattern> find_pattern(std::string_view regex);

// Number of bytes of the first pretoken. The text must be valid UTF-8 and not empty.
size_t measure_pretoken(Pattern pattern, std::string_view text);

}  // namespace glm
