// OptionDeclarer: how commands declare options on CLI11.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "block/util/result.h"
#include "cmd/program.h"

namespace CLI {
class App;
}

namespace coimg {

/// Declares options on one CLI11 app. Values are bound in the order of the command line; of a repeated option the last
/// one wins, unless its parser collects. The first error that a parser returns is kept, as CLI11 could pass it on only
/// by an exception.
class OptionDeclarer {
 public:
  /// Both outlive the declarer, and the declarer the parsing.
  OptionDeclarer(CLI::App& app, const Program& program) : app_(app), program_(program) {}
  OptionDeclarer(const OptionDeclarer&) = delete;
  OptionDeclarer& operator=(const OptionDeclarer&) = delete;

  /// Names are in CLI11's form "-q,--quiet". Targets outlive the parsing.
  void flag(const char* names, bool& target, const char* help);
  /// A flag that calls `act`, once for each occurrence.
  void action(const char* names, std::function<void()> act, const char* help);
  void text(const char* names, const char* value_name, std::string& target, const char* help);
  void text(const char* names, const char* value_name, std::optional<std::string>& target, const char* help);
  /// An option whose value `parse` takes; called once for each occurrence.
  void parsed(const char* names, const char* value_name, std::function<Result<void>(const std::string&)> parse,
              const char* help);
  /// What the help says of operands: `usage` in its first line, `text` at its end. They are not parsed here.
  void describe_operands(const char* usage, const char* text);

  /// For parsers that have found a question instead of a value: the program prints `text` and ends.
  void answer(std::string text) { answer_ = std::move(text); }

  [[nodiscard]] const Program& program() const { return program_; }
  [[nodiscard]] const std::optional<Error>& first_error() const { return first_error_; }
  [[nodiscard]] const std::optional<std::string>& answer() const { return answer_; }

 private:
  CLI::App& app_;
  const Program& program_;
  std::optional<Error> first_error_;
  std::optional<std::string> answer_;
};

}  // namespace coimg
