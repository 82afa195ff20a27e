// Sizes and option lists as text: what users write behind -o and --image-opts, and in size operands.
//
// The JSON form of options is in options_json.cc.
#include "block/options.h"

#include <errno.h>

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "block/open.h"
#include "block/util/math.h"
#include "block/warnings.h"

namespace coimg {

namespace {

constexpr std::string_view kSizeHint =
    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
    "and exabytes, respectively.\n";

bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// The power of two that a size suffix stands for.
std::optional<unsigned> suffix_shift(char suffix) {
  static constexpr std::string_view kSuffixes = "bkmgtpe";
  const char lower = suffix >= 'A' && suffix <= 'Z' ? static_cast<char>(suffix - 'A' + 'a') : suffix;
  const size_t index = kSuffixes.find(lower);
  if (index == std::string_view::npos) return std::nullopt;
  return static_cast<unsigned>(index * 10);
}

/// 0.DIGITS times 2^shift, rounded half up. Exact for any number of digits: the decimal fraction is doubled `shift`
/// times, and each carry out of its first digit is the next bit of the result.
uint64_t scale_fraction(std::string_view digits, unsigned shift) {
  std::string fraction(digits);
  uint64_t whole = 0;
  for (unsigned i = 0; i < shift; ++i) {
    int carry = 0;
    for (auto digit = fraction.rbegin(); digit != fraction.rend(); ++digit) {
      const int doubled = (*digit - '0') * 2 + carry;
      *digit = static_cast<char>('0' + doubled % 10);
      carry = doubled / 10;
    }
    whole = whole * 2 + static_cast<uint64_t>(carry);
  }
  return whole + (!fraction.empty() && fraction[0] >= '5' ? 1 : 0);
}

/// An unsigned number in C's notation: decimal, 0x, or octal behind a zero. Nothing else may surround it.
std::expected<uint64_t, SizeParseError> parse_plain_number(std::string_view text) {
  while (!text.empty() && is_blank(text[0])) text.remove_prefix(1);
  if (text.starts_with('+')) text.remove_prefix(1);
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    base = 16;
    text.remove_prefix(2);
  } else if (text.size() > 1 && text[0] == '0') {
    base = 8;
    text.remove_prefix(1);
  }
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error == std::errc::invalid_argument || end != text.data() + text.size()) {
    return std::unexpected(SizeParseError::kSyntax);
  }
  if (error != std::errc()) return std::unexpected(SizeParseError::kRange);
  return value;
}

std::optional<bool> parse_bool(std::string_view text) {
  for (const std::string_view yes : {"on", "yes", "true", "y"}) {
    if (text == yes) return true;
  }
  for (const std::string_view no : {"off", "no", "false", "n"}) {
    if (text == no) return false;
  }
  return std::nullopt;
}

Error bad_bool(std::string_view name) { return {EINVAL, fmt::format("Parameter '{}' expects 'on' or 'off'", name)}; }

Result<uint64_t> parse_size_option(std::string_view name, std::string_view text) {
  const auto size = parse_size(text, UINT64_MAX);
  if (size) return *size;
  if (size.error() == SizeParseError::kRange) {
    return Error(EINVAL, fmt::format("Value '{}' is out of range for parameter '{}'", text, name));
  }
  return Error(EINVAL, fmt::format("Parameter '{}' expects a non-negative number below 2^64", name))
      .with_hint(std::string(kSizeHint));
}

Result<uint64_t> parse_number_option(std::string_view name, std::string_view text) {
  const auto number = parse_plain_number(text);
  if (number) return *number;
  if (number.error() == SizeParseError::kRange) {
    return Error(EINVAL, fmt::format("Value '{}' is too large for parameter '{}'", text, name));
  }
  return Error(EINVAL, fmt::format("Parameter '{}' expects a number", name));
}

/// One "name=value" or "name" of a list, with doubled commas already single.
struct ListElement {
  std::string name;
  std::optional<std::string> value;
};

/// Cuts a list at its single commas. A comma behind the last element makes no further one.
std::vector<ListElement> split_list(std::string_view list) {
  std::vector<ListElement> elements;
  size_t at = 0;
  while (at < list.size()) {
    ListElement element;
    for (; at < list.size(); ++at) {
      if (list[at] == '=' && !element.value) {
        element.value.emplace();
        continue;
      }
      if (list[at] == ',') {
        if (at + 1 == list.size() || list[at + 1] != ',') break;
        ++at;
      }
      (element.value ? *element.value : element.name) += list[at];
    }
    ++at;
    elements.push_back(std::move(element));
  }
  return elements;
}

}  // namespace

std::expected<uint64_t, SizeParseError> parse_size(std::string_view text, uint64_t max) {
  const std::string_view whole = text;
  const auto syntax = std::unexpected(SizeParseError::kSyntax);
  const auto range = std::unexpected(SizeParseError::kRange);
  while (!text.empty() && is_blank(text[0])) text.remove_prefix(1);
  if (text.starts_with('+')) text.remove_prefix(1);

  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  if (hex) text.remove_prefix(2);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, hex ? 16 : 10);
  if (error == std::errc::invalid_argument) return syntax;
  const bool overflow = error == std::errc::result_out_of_range;
  text.remove_prefix(static_cast<size_t>(end - text.data()));

  std::string_view fraction;
  if (!hex && text.starts_with('.')) {
    text.remove_prefix(1);
    const auto digits_end = std::find_if_not(text.begin(), text.end(), is_digit);
    fraction = text.substr(0, static_cast<size_t>(digits_end - text.begin()));
    text.remove_prefix(fraction.size());
    while (fraction.ends_with('0')) fraction.remove_suffix(1);
  }
  unsigned shift = 0;
  if (!text.empty()) {
    const auto known = suffix_shift(text[0]);
    if (!known || text.size() > 1) return syntax;
    shift = *known;
  }
  if (shift == 0 && !fraction.empty()) return syntax;  // there is nothing smaller than a byte

  if (overflow) return range;
  if (hex && !text.empty()) {
    emit_warning(fmt::format("{}: warning: Using a multiplier suffix on hex numbers is deprecated: {}\n",
                             program_invocation_short_name, whole));
  }
  if (value > (UINT64_MAX >> shift)) return range;
  const auto total = checked_add(value << shift, scale_fraction(fraction, shift));
  if (!total || *total > max) return range;
  return *total;
}

// --- Options -------------------------------------------------------------------------------------------------------

std::optional<std::string> Options::take_text(std::string_view key) {
  const auto found = values_.find(key);
  if (found == values_.end()) return std::nullopt;
  const OptionValue value = std::move(found->second);
  values_.erase(found);
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* number = std::get_if<int64_t>(&value)) return std::to_string(*number);
  if (const auto* boolean = std::get_if<bool>(&value)) return *boolean ? "on" : "off";
  return std::string();
}

Result<std::optional<bool>> Options::take_bool(std::string_view key) {
  const auto found = values_.find(key);
  if (found == values_.end()) return std::optional<bool>();
  const OptionValue value = std::move(found->second);
  values_.erase(found);
  if (const auto* boolean = std::get_if<bool>(&value)) return std::optional<bool>(*boolean);
  if (const auto* text = std::get_if<std::string>(&value)) {
    if (const auto parsed = parse_bool(*text)) return parsed;
  }
  return bad_bool(key);
}

Result<std::optional<int64_t>> Options::take_number(std::string_view key) {
  const auto found = values_.find(key);
  if (found == values_.end()) return std::optional<int64_t>();
  const OptionValue value = std::move(found->second);
  values_.erase(found);
  if (const auto* number = std::get_if<int64_t>(&value)) return std::optional(*number);
  const auto* text = std::get_if<std::string>(&value);
  std::string_view digits = text ? std::string_view(*text) : "";
  const bool negative = digits.starts_with('-');
  if (negative) digits.remove_prefix(1);
  const auto magnitude = COIMG_TRY(parse_number_option(key, digits));
  if (magnitude > INT64_MAX)
    return Error(EINVAL, fmt::format("Value '{}' is too large for parameter '{}'", *text, key));
  return std::optional(negative ? -static_cast<int64_t>(magnitude) : static_cast<int64_t>(magnitude));
}

Result<std::optional<uint64_t>> Options::take_size(std::string_view key) {
  const auto found = values_.find(key);
  if (found == values_.end()) return std::optional<uint64_t>();
  const OptionValue value = std::move(found->second);
  values_.erase(found);
  if (const auto* number = std::get_if<int64_t>(&value); number && *number >= 0) {
    return std::optional<uint64_t>(static_cast<uint64_t>(*number));
  }
  const auto* text = std::get_if<std::string>(&value);
  return std::optional<uint64_t>(COIMG_TRY(parse_size_option(key, text ? std::string_view(*text) : "")));
}

Options Options::take_child(std::string_view prefix) {
  Options child;
  const std::string dotted = fmt::format("{}.", prefix);
  for (auto it = values_.lower_bound(prefix); it != values_.end() && it->first.starts_with(prefix);) {
    if (it->first.size() == prefix.size()) {
      child.set("", std::move(it->second));
    } else if (it->first.starts_with(dotted)) {
      child.set(it->first.substr(dotted.size()), std::move(it->second));
    } else {  // another name that begins alike, as "file-size" does with "file"
      ++it;
      continue;
    }
    it = values_.erase(it);
  }
  return child;
}

Result<Options> parse_key_value_options(std::string_view text, std::string_view implied_key) {
  Options options;
  bool first = true;
  for (ListElement& element : split_list(text)) {
    if (element.value) {
      options.set(std::move(element.name), std::move(*element.value));
    } else if (first && !implied_key.empty()) {
      options.set(std::string(implied_key), std::move(element.name));
    } else {
      const bool negated = element.name.starts_with("no");
      const std::string name = negated ? element.name.substr(2) : element.name;
      const char* value = negated ? "off" : "on";
      emit_warning(fmt::format("{}: warning: short-form boolean option '{}' deprecated\nPlease use {}={} instead\n",
                               program_invocation_short_name, element.name, name, value));
      options.set(name, std::string(value));
    }
    first = false;
  }
  return options;
}

Result<Options> parse_properties(std::string_view text, std::string_view implied_key, bool& asks_for_help) {
  Options options;
  bool first = true;
  for (ListElement& element : split_list(text)) {
    if (element.name.empty()) return Error(EINVAL, "Invalid parameter ''");
    if (element.value) {
      options.set(std::move(element.name), std::move(*element.value));
    } else if (element.name == "help" || element.name == "?") {
      asks_for_help = true;
    } else if (first) {
      options.set(std::string(implied_key), std::move(element.name));
    } else {
      return Error(EINVAL, fmt::format("Expected '=' after parameter '{}'", element.name));
    }
    first = false;
  }
  return options;
}

bool is_identifier(std::string_view name) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto may_follow = [&](char c) { return is_letter(c) || is_digit(c) || c == '-' || c == '.' || c == '_'; };
  return !name.empty() && is_letter(name.front()) && std::ranges::all_of(name, may_follow);
}

// --- CreateOptions -------------------------------------------------------------------------------------------------

Result<void> CreateOptions::parse(std::string_view list) {
  const size_t last = list.find_last_not_of(',');
  const size_t trailing_commas = last == std::string_view::npos ? list.size() : list.size() - last - 1;
  if (list.empty() || list[0] == ',' || trailing_commas % 2 != 0) {
    return Error(EINVAL, fmt::format("Invalid option list: {}", list));
  }
  for (const ListElement& element : split_list(list)) {
    if (element.value) {
      COIMG_TRY(set(element.name, *element.value));
    } else if (!find_spec(element.name) && element.name.starts_with("no")) {
      COIMG_TRY(set(element.name.substr(2), "off"));
    } else {
      COIMG_TRY(set(element.name, "on"));
    }
  }
  return {};
}

Result<void> CreateOptions::set(std::string_view name, std::string_view value) {
  const CreateOptionSpec* spec = find_spec(name);
  if (!spec) return Error(EINVAL, fmt::format("Invalid parameter '{}'", name));
  switch (spec->type) {
    case OptionType::kText:
      break;
    case OptionType::kBool:
      if (!parse_bool(value)) return bad_bool(name);
      break;
    case OptionType::kSize:  // kept in bytes, so that what is odd about it is said once
      values_.insert_or_assign(std::string(name), std::to_string(COIMG_TRY(parse_size_option(name, value))));
      return {};
    case OptionType::kNumber:
      COIMG_TRY(parse_number_option(name, value));
      break;
  }
  values_.insert_or_assign(std::string(name), std::string(value));
  return {};
}

void CreateOptions::unset(std::string_view name) {
  if (const auto found = values_.find(name); found != values_.end()) values_.erase(found);
}

const CreateOptionSpec* CreateOptions::find_spec(std::string_view name) const {
  const auto found = std::find_if(specs_.begin(), specs_.end(), [&](const auto& spec) { return spec.name == name; });
  return found == specs_.end() ? nullptr : &*found;
}

std::optional<std::string> CreateOptions::text(std::string_view name) const {
  if (const auto given = values_.find(name); given != values_.end()) return given->second;
  const CreateOptionSpec* spec = find_spec(name);
  if (!spec || spec->default_value.empty()) return std::nullopt;
  return std::string(spec->default_value);
}

bool CreateOptions::boolean(std::string_view name) const {
  const auto value = text(name);
  return value && parse_bool(*value).value_or(false);
}

std::optional<uint64_t> CreateOptions::number(std::string_view name) const {
  const CreateOptionSpec* spec = find_spec(name);
  const auto value = text(name);
  if (!spec || !value) return std::nullopt;
  const auto parsed = spec->type == OptionType::kNumber ? parse_plain_number(*value) : parse_size(*value, UINT64_MAX);
  return parsed ? std::optional(*parsed) : std::nullopt;
}

std::string CreateOptions::describe() const {
  std::string line;
  for (const CreateOptionSpec& spec : specs_) {
    auto value = text(spec.name);
    if (!value) continue;
    if (spec.type == OptionType::kSize || spec.type == OptionType::kNumber) {
      value = std::to_string(number(spec.name).value_or(0));
    }
    line += fmt::format("{}{}=", line.empty() ? "" : " ", spec.name);
    for (const char c : *value) line.append(c == ',' ? 2 : 1, c);
  }
  return line;
}

}  // namespace coimg
