// StopSignals: ending a command in order when the user interrupts it.
#pragma once

#include <functional>

#include "cmd/command.h"

namespace coimg {

/// While the object lives, SIGINT, SIGTERM and SIGHUP ask the command to stop; it does so, cleans up, and the program
/// then ends by that signal. A second signal does not wait for the command: it calls `before_death` and ends the
/// program on the spot. Signals that the program was started with as ignored (nohup) stay ignored.
///
/// Where several commands run side by side, all are asked. A batch can ask one of them alone, through its context.
///
/// Context: the main loop is initialised.
class StopSignals {
 public:
  /// `context` outlives the object.
  StopSignals(const CommandContext& context, std::function<void()> before_death);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// The signal that asks to stop, or 0.
  [[nodiscard]] int received() const { return received_ != 0 ? received_ : context_.stop_requested; }

 private:
  static void on_signal(int signal_number);

  const CommandContext& context_;
  std::function<void()> before_death_;
  int received_ = 0;
};

/// Ends the program the way the signal does by default, so that a shell or supervisor sees what happened.
[[noreturn]] void die_of_signal(int signal_number);

}  // namespace coimg
