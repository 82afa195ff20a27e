// Options as a JSON object: the text behind "json:".
//
// The text is flattened while it is parsed, without a tree in between: nesting costs no stack and is bounded.
#include <cctype>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "block/options.h"

namespace coimg {

namespace {

using nlohmann::json;

/// No driver nests its options nearly as deep; the limit bounds the length of the dotted keys.
constexpr size_t kMaxDepth = 64;

/// The word at the byte `position` of invalid JSON, when there is one: the usual mistake is a missing quote.
std::string_view word_at(std::string_view text, size_t position) {
  const auto is_word = [&](size_t i) { return std::isalnum(static_cast<unsigned char>(text[i])) || text[i] == '_'; };
  size_t begin = std::min(position, text.size());
  size_t end = begin;
  while (begin > 0 && is_word(begin - 1)) --begin;
  while (end < text.size() && is_word(end)) ++end;
  return text.substr(begin, end - begin);
}

/// The text with all strings in double quotes, and without the escape that only single ones need.
std::string with_double_quotes(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  char quote = 0;  // of the string that `at` is in
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (quote == 0) {
      if (c == '\'' || c == '"') quote = c;
      result += c == '\'' ? '"' : c;
    } else if (c == '\\' && at + 1 < text.size()) {
      if (text[++at] != '\'') result += c;
      result += text[at];
    } else if (c == quote) {
      quote = 0;
      result += '"';
    } else {
      if (c == '"') result += '\\';
      result += c;
    }
  }
  return result;
}

/// Receives the parser's events and fills Options. Array elements are named by their index.
class Flattener : public nlohmann::json_sax<json> {
 public:
  explicit Flattener(std::string_view text) : text_(text) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(int64_t{value}); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value <= INT64_MAX) return put(static_cast<int64_t>(value));
    return put(std::to_string(value));
  }
  bool number_float(number_float_t, const string_t& text) override { return put(text); }
  bool string(string_t& value) override { return put(value); }
  bool binary(binary_t&) override { return refuse("binary value"); }

  bool start_object(size_t) override { return open(/*array=*/false); }
  bool start_array(size_t) override { return open(/*array=*/true); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    levels_.back().key = name;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    if (const std::string_view word = word_at(text_, position == 0 ? 0 : position - 1); !word.empty()) {
      return refuse(fmt::format("invalid keyword '{}'", word));
    }
    return refuse(position > text_.size() ? "premature end of the text" : fmt::format("unexpected byte {}", position));
  }

  /// The outcome, once the parser is done.
  Result<Options> finish() {
    if (!problem_.empty()) {
      return Error(EINVAL, fmt::format("Could not parse the JSON options: JSON parse error, {}", problem_));
    }
    if (!is_object_) return Error(EINVAL, "Invalid JSON object given");
    return std::move(options_);
  }

 private:
  struct Level {
    std::string prefix;  ///< of all keys here, with its dot
    std::string key;     ///< the member being read
    bool array;
    size_t next_index = 0;
  };

  bool refuse(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  /// The flat name of the value that comes next.
  std::string next_name() {
    Level& level = levels_.back();
    return level.prefix + (level.array ? std::to_string(level.next_index++) : level.key);
  }

  bool put(OptionValue value) {
    if (levels_.empty()) return true;  // a lone scalar: finish() refuses it
    std::string name = next_name();
    if (options_.has(name)) return refuse("duplicate key");
    options_.set(std::move(name), std::move(value));
    return true;
  }

  bool open(bool array) {
    if (levels_.size() >= kMaxDepth) return refuse("nested too deep");
    if (levels_.empty()) {
      is_object_ = !array;
      levels_.push_back({"", "", array});
    } else {
      levels_.push_back({next_name() + ".", "", array});
    }
    return true;
  }

  bool close() {
    levels_.pop_back();
    return true;
  }

  std::string_view text_;
  std::vector<Level> levels_;
  Options options_;
  std::string problem_;
  bool is_object_ = false;
};

}  // namespace

Result<Options> parse_json_options(std::string_view text) {
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    return Error(EINVAL, "Could not parse the JSON options: Expecting a JSON value");
  }
  const std::string usual = with_double_quotes(text);
  Flattener flattener(usual);
  (void)json::sax_parse(usual, &flattener);
  return flattener.finish();
}

}  // namespace coimg
