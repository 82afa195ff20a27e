// StopSignals: ending a command in order when the user interrupts it.
#pragma once

#include <functional>
#include <vector>

namespace coimg {

/// While the object lives, SIGINT, SIGTERM and SIGHUP ask the command to stop; it does so, cleans up, and the program
/// then ends by that signal. A second signal does not wait for the command: it calls `before_death` and ends the
/// program on the spot. Signals that the program was started with as ignored (nohup) stay ignored.
///
/// Context: the main loop is initialised; one object at a time.
class StopSignals {
 public:
  explicit StopSignals(std::function<void()> before_death);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// The signal that asks to stop, or 0.
  [[nodiscard]] int received() const { return received_; }

 private:
  void on_signal(int signal_number);

  std::function<void()> before_death_;
  std::vector<int> handled_;
  int received_ = 0;
};

/// Ends the program the way the signal does by default, so that a shell or supervisor sees what happened.
[[noreturn]] void die_of_signal(int signal_number);

}  // namespace coimg
