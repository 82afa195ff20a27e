#include "cmd/option_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

namespace coimg {

namespace {

std::string_view type_text(OptionType type) {
  switch (type) {
    case OptionType::kText:
      return "str";
    case OptionType::kSize:
      return "size";
    case OptionType::kNumber:
      return "num";
    case OptionType::kBool:
      return "bool (on/off)";
  }
  return "";
}

/// Two commas are one in a value, so an odd number of them ends with a separator.
bool ends_with_separator(std::string_view list) {
  const size_t last_other = list.find_last_not_of(',');
  const size_t commas = last_other == std::string_view::npos ? list.size() : list.size() - last_other - 1;
  return commas % 2 == 1;
}

}  // namespace

void OptionList::declare(OptionDeclarer& options) {
  options.parsed(
      "-o", "OPTIONS", [this](const std::string& list) { return append(list); },
      "Creation options NAME=VALUE[,...]; 'help' lists them");
}

Result<void> OptionList::append(std::string_view list) {
  if (list.empty() || list.front() == ',' || ends_with_separator(list)) {
    return Error(EINVAL, fmt::format("Invalid option list: {}", list));
  }
  if (!text_.empty()) text_ += ',';
  text_ += list;
  return {};
}

bool OptionList::asks_for_help() const {
  const auto is_help = [](std::string_view element) { return element == "help" || element == "?"; };
  std::string_view rest = text_;
  for (;;) {
    const size_t end = rest.find(',');
    if (is_help(rest.substr(0, end))) return true;
    if (end == std::string_view::npos) return false;
    rest.remove_prefix(end + 1);
  }
}

std::string render_option_help(std::string_view heading, std::vector<CreateOptionSpec> specs) {
  std::sort(specs.begin(), specs.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  std::string text = fmt::format("{}\n", heading);
  for (const CreateOptionSpec& spec : specs) {
    text += fmt::format("{:<24} - {}\n", fmt::format("  {}=<{}>", spec.name, type_text(spec.type)), spec.help);
  }
  return text;
}

}  // namespace coimg
