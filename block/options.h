// Options of images: what --image-opts, json:{...} and -o carry.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "block/util/result.h"

namespace coimg {

/// A scalar as given: text from a key=value list, or a JSON scalar with its type.
using OptionValue = std::variant<std::string, int64_t, bool, std::nullptr_t>;

/// Flat options; a nested key is written with dots ("file.filename"). Taking an option marks it as used, so that what
/// is left over can be refused by name.
class Options {
 public:
  void set(std::string key, OptionValue value) { values_[std::move(key)] = std::move(value); }
  [[nodiscard]] bool has(std::string_view key) const { return values_.contains(key); }
  [[nodiscard]] bool empty() const { return values_.empty(); }
  [[nodiscard]] const std::map<std::string, OptionValue, std::less<>>& values() const { return values_; }

  /// Removes an option and converts it; nothing when absent. Errors: EINVAL with qemu-img's words for a bad value.
  std::optional<std::string> take_text(std::string_view key);
  Result<std::optional<bool>> take_bool(std::string_view key);
  Result<std::optional<int64_t>> take_number(std::string_view key);  ///< no suffix
  Result<std::optional<uint64_t>> take_size(std::string_view key);   ///< accepts the suffixes of specs 2.1, parser B
  /// Removes all options "PREFIX.rest" and returns them as "rest"; also an option "PREFIX" itself, as "".
  Options take_child(std::string_view prefix);

 private:
  std::map<std::string, OptionValue, std::less<>> values_;
};

/// Parses "a=b,c=d" with ",," for a comma, for --image-opts. A first word alone is the value of `implied_key`, unless
/// that is empty.
Result<Options> parse_key_value_options(std::string_view text, std::string_view implied_key = "file");
/// The same for --object: every element needs its value, and a "help" or "?" without one, wherever it stands, sets
/// `asks_for_help`.
Result<Options> parse_properties(std::string_view text, std::string_view implied_key, bool& asks_for_help);
/// Whether nodes and objects can be named so: letters, digits, '-', '.' and '_' behind a letter.
bool is_identifier(std::string_view name);
/// Parses the object behind "json:". Strings may also stand in single quotes.
Result<Options> parse_json_options(std::string_view json);

/// A size as in cli.md 2.1, for options and, through cmd, operands. Warns of hexadecimal numbers with a suffix.
enum class SizeParseError { kSyntax, kRange };
std::expected<uint64_t, SizeParseError> parse_size(std::string_view text, uint64_t max);

/// The kind of a creation option, as help shows it.
enum class OptionType { kText, kSize, kNumber, kBool };

/// One creation option of a format: the row of `-o help`, and the order of the "Formatting" line.
struct CreateOptionSpec {
  std::string_view name;
  OptionType type;
  std::string_view help;
  std::string_view default_value = {};  ///< shown and used when not given; empty for none
};

/// Options for create in the spelling of qemu-img: validated against a table of specs, values kept as given.
class CreateOptions {
 public:
  explicit CreateOptions(std::vector<CreateOptionSpec> specs) : specs_(std::move(specs)) {}

  /// Parses one -o list. Errors: EINVAL with qemu-img's words ("Invalid parameter 'x'", "Parameter 'x' expects ...").
  Result<void> parse(std::string_view list);
  Result<void> set(std::string_view name, std::string_view value);
  void unset(std::string_view name);

  [[nodiscard]] const std::vector<CreateOptionSpec>& specs() const { return specs_; }
  [[nodiscard]] const CreateOptionSpec* find_spec(std::string_view name) const;
  [[nodiscard]] bool given(std::string_view name) const { return values_.contains(name); }
  /// The value given, else the default, else nothing.
  [[nodiscard]] std::optional<std::string> text(std::string_view name) const;
  [[nodiscard]] bool boolean(std::string_view name) const;  ///< false when neither given nor defaulted
  [[nodiscard]] std::optional<uint64_t> number(std::string_view name) const;  ///< sizes and numbers; validated by set()

  /// "name=value name=value ...": all options that have a value, in the order of the specs, as create prints them.
  [[nodiscard]] std::string describe() const;

 private:
  std::vector<CreateOptionSpec> specs_;
  std::map<std::string, std::string, std::less<>> values_;
};

}  // namespace coimg
