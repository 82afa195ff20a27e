// Progress: the percentage that -p and SIGUSR1 show.
#pragma once

#include <cstdint>

#include "cmd/console.h"

namespace coimg {

/// Shows how far a command is. With `enabled` (-p) each step is drawn over the last one on stdout, and a newline ends
/// it when the object goes; otherwise SIGUSR1 asks for one line on stderr with the next update. A console that shows
/// progress as JSON gets that instead of what -p draws: a line when kJsonIntervalNs have passed since the last one,
/// and one at the end.
///
/// Context: the main loop is initialised.
class Progress {
 public:
  static constexpr int64_t kJsonIntervalNs = 250'000'000;

  /// Shows 0 at once. `step_percent` is how much has to happen before the next update is drawn.
  Progress(Console& console, bool enabled, double step_percent);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` of `total` (both in the caller's unit; a total of 0 counts as done).
  void update(uint64_t done, uint64_t total);
  /// All is done.
  void finish();

 private:
  void show_json(uint64_t done, double percent);
  void on_signal() { line_requested_ = true; }
  static void tell_all();

  Console& console_;
  const bool enabled_;
  const double step_percent_;
  double shown_percent_ = 0;
  const bool json_;
  uint64_t total_ = 0;      ///< of the last update
  int64_t started_ns_ = 0;  ///< the rest is for JSON
  int64_t next_line_ns_ = 0;
  bool line_requested_ = false;  ///< by SIGUSR1
};

}  // namespace coimg
