// CommandLine: from argv to a command that is ready to run.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cmd/command.h"

namespace coimg {

/// Parses a command line. What needs no command (help, version, mistakes) is dealt with on the spot.
class CommandLine {
 public:
  explicit CommandLine(CommandContext& context);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  /// `words` are argv without the program's name. Returns the exit code when there is nothing to run; else command() is
  /// prepared.
  std::optional<int> parse(std::span<const std::string> words);

  /// The same for a command alone, as jobs of a batch are: its name and what follows, at least one word.
  std::optional<int> parse_job(std::span<const std::string> words);

  [[nodiscard]] Command& command() { return *command_; }

 private:
  std::optional<int> parse_command(const std::string& name, std::span<const std::string> words);
  void declare_own_options(OptionDeclarer& options);
  int usage_error(std::string message);

  CommandContext& context_;
  std::vector<std::unique_ptr<Command>> commands_;
  Command* command_ = nullptr;  ///< the one that was asked for
  bool untrusted_ = false;
};

}  // namespace coimg
