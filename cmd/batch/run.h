// Running the jobs of a batch.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "block/throttle.h"
#include "cmd/batch/jobs.h"
#include "cmd/batch/state.h"
#include "cmd/command.h"
#include "cmd/console.h"
#include "cmd/stop_signals.h"
#include "coroutine/annotations.h"
#include "coroutine/co_group.h"

namespace coimg {

enum class BatchStatus {
  kNotRun,
  kDone,
  kDoneBefore,  ///< by an earlier run
  kFailed,
  kTimedOut,
  kSkipped,      ///< because of a job before it
  kInterrupted,  ///< by a signal to the program
};

struct BatchResult {
  BatchStatus status = BatchStatus::kNotRun;
  int exit_code = 0;
  unsigned tries = 0;
  double seconds = 0;            ///< of all tries
  std::string reason;            ///< why it was skipped
  Console::Capture output = {};  ///< of the last try
};

/// The exit code of a job that was stopped because its time was up, as timeout(1) has it.
inline constexpr int kTimedOutExitCode = 124;

struct BatchOptions {
  unsigned jobs = 1;        ///< how many run at once; at least 1
  uint64_t rate_limit = 0;  ///< bytes a second that all together write; 0 for no limit
  unsigned retries = 0;     ///< for jobs that do not say how many
  bool keep_going = false;  ///< after a failure the jobs go on that do not depend on it
};

/// Runs jobs as coroutines of the main loop, each after those that it waits for.
class BatchRun {
 public:
  /// All outlive the object. `state` is open. `on_end` is called when a job has run, and may take its output.
  BatchRun(CommandContext& context, const std::vector<BatchJob>& jobs, BatchState& state, const BatchOptions& options,
           std::function<void(size_t index)> on_end);

  /// Marks what the state says is done, and whose files are as they were left. Not that of a job behind one that has to
  /// run again.
  void take_over();

  /// Runs the rest, and waits for all that it started. An interrupt ends the jobs that can be stopped, and sets the
  /// context's fatal_signal. Errors: the state could not be written; the results are there.
  Result<void> run() coroutine_fn;

  [[nodiscard]] std::vector<BatchResult>& results() { return results_; }
  /// How many jobs ran at once at most.
  [[nodiscard]] unsigned most_at_once() const { return most_at_once_; }

 private:
  void start(size_t index) coroutine_fn;
  void run_job(size_t index) coroutine_fn;
  void try_job(size_t index, std::set<std::string>& outputs) coroutine_fn;
  int run_command(CommandContext& context, const std::vector<std::string>& words) coroutine_fn;
  void settle(size_t index);
  void skip_those_after(size_t index);

  CommandContext& context_;
  const std::vector<BatchJob>& jobs_;
  BatchState& state_;
  const BatchOptions options_;
  std::function<void(size_t)> on_end_;
  StopSignals signals_;
  std::shared_ptr<RateLimiter> rate_limit_;
  std::vector<BatchResult> results_;
  std::vector<size_t> waits_for_;  ///< how many jobs each still waits for
  std::set<size_t> ready_;
  bool stop_ = false;  ///< no more jobs are started
  std::optional<Error> state_error_;
  unsigned most_at_once_ = 0;
  CoGroup group_;
};

}  // namespace coimg
