// Creation options (-o): collecting the lists, and the help that "-o help" asks for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "block/options.h"
#include "block/util/result.h"
#include "cmd/option_declarer.h"

namespace coimg {

/// The values of all -o of a command line, joined in their order.
class OptionList {
 public:
  void declare(OptionDeclarer& options);

  /// Errors: "Invalid option list: LIST" for a list with an empty element at its start or end.
  Result<void> append(std::string_view list);

  [[nodiscard]] bool given() const { return !text_.empty(); }
  [[nodiscard]] const std::string& text() const { return text_; }
  /// Whether an element is "help" or "?".
  [[nodiscard]] bool asks_for_help() const;

 private:
  std::string text_;
};

/// The table of "-o help", sorted by name. `heading` stands above it.
std::string render_option_help(std::string_view heading, std::vector<CreateOptionSpec> specs);

}  // namespace coimg
