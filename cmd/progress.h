// Progress: the percentage that -p and SIGUSR1 show.
#pragma once

#include <cstdint>

#include "cmd/console.h"

namespace coimg {

/// Shows how far a command is. With `enabled` (-p) each step is drawn over the last one on stdout, and a newline ends
/// it when the object goes; otherwise SIGUSR1 asks for one line on stderr with the next update.
///
/// Context: the main loop is initialised; one object at a time.
class Progress {
 public:
  /// Shows 0 at once. `step_percent` is how much has to happen before the next update is drawn.
  Progress(Console& console, bool enabled, double step_percent);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` of `total` (both in the caller's unit; a total of 0 counts as done).
  void update(uint64_t done, uint64_t total);
  void finish() { update(1, 1); }

 private:
  Console& console_;
  const bool enabled_;
  const double step_percent_;
  double shown_percent_ = 0;
  bool line_requested_ = false;  ///< by SIGUSR1
};

}  // namespace coimg
