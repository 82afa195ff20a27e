// Command: one subcommand of the program.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "block/driver.h"
#include "block/util/result.h"
#include "cmd/console.h"
#include "cmd/program.h"
#include "coroutine/annotations.h"

namespace coimg {

class OptionDeclarer;
class RateLimiter;

/// What commands work with. Outlives them.
struct CommandContext {
  DriverRegistry& registry;
  Console& console;
  const Program& program;
  int fatal_signal = 0;  ///< set by a command that was stopped by a signal: the program ends by it

  // The rest is for commands that run as jobs of a batch.
  bool in_batch = false;
  int stop_requested = 0;                                       ///< the command is to stop as if it got this signal
  std::shared_ptr<RateLimiter> rate_limit = {};                 ///< of all writes to images; empty for none
  std::function<void(const std::string& file)> on_output = {};  ///< called with files that the command may change

  /// Prints the error and returns the exit code, for commands whose codes tell failures apart.
  int fail(int exit_code, const Error& error) const {
    console.error(error);
    return exit_code;
  }
  /// Remembers the signal that ended the command, and returns the exit code that goes with it.
  int stopped_by(int signal_number) {
    fatal_signal = signal_number;
    return 128 + signal_number;
  }
};

/// How much a command does with the images that it opens, which bounds the resources that it should need.
enum class CommandWork {
  kLook,    ///< metadata only
  kRead,    ///< data too
  kChange,  ///< writes
};

/// A subcommand: declares its options, checks its operands, and runs. An object serves one run.
class Command {
 public:
  virtual ~Command() = default;
  Command() = default;
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  [[nodiscard]] virtual std::string_view name() const = 0;
  /// What the command is for, in a few words.
  [[nodiscard]] virtual std::string_view summary() const = 0;
  /// Options and operands in the form "[-f fmt] filename", for the program's help.
  [[nodiscard]] virtual std::string_view syntax() const = 0;

  /// The exit code for a bad value of an option.
  [[nodiscard]] virtual int option_error_exit_code() const { return 1; }

  /// Whether the last word is an operand whatever it looks like, as in "resize FILE -1G"; there have to be two then.
  [[nodiscard]] virtual bool last_word_is_operand() const { return false; }

  /// Whether the command is there when the program stands in for qemu-img.
  [[nodiscard]] virtual bool known_to_qemu_img() const { return true; }

  /// Whether qemu-img answers a bad option of this command with its help and success.
  [[nodiscard]] virtual bool forgives_bad_options() const { return false; }

  /// Known when the options are bound.
  [[nodiscard]] virtual CommandWork work() const { return CommandWork::kChange; }

  /// Declares the options and where their values go.
  virtual void declare(OptionDeclarer& options) = 0;

  /// Takes the operands and checks everything that needs no file. Called after the options were bound.
  virtual Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) = 0;

  /// Does the work and returns the exit code; for an Error that the caller prints it is 1.
  virtual Result<int> run(CommandContext& context) coroutine_fn = 0;
};

/// All commands, in the order of the help.
std::vector<std::unique_ptr<Command>> make_commands();

std::unique_ptr<Command> make_amend_command();
std::unique_ptr<Command> make_batch_command();
std::unique_ptr<Command> make_bench_command();
std::unique_ptr<Command> make_bitmap_command();
std::unique_ptr<Command> make_check_command();
std::unique_ptr<Command> make_checksum_command();
std::unique_ptr<Command> make_commit_command();
std::unique_ptr<Command> make_compare_command();
std::unique_ptr<Command> make_convert_command();
std::unique_ptr<Command> make_create_command();
std::unique_ptr<Command> make_dd_command();
std::unique_ptr<Command> make_info_command();
std::unique_ptr<Command> make_io_command();
std::unique_ptr<Command> make_map_command();
std::unique_ptr<Command> make_measure_command();
std::unique_ptr<Command> make_rebase_command();
std::unique_ptr<Command> make_resize_command();
std::unique_ptr<Command> make_snapshot_command();

}  // namespace coimg
