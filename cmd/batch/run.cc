#include "cmd/batch/run.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <utility>

#include "cmd/cli.h"
#include "coroutine/aio_context.h"
#include "coroutine/coroutine.h"

namespace coimg {

BatchRun::BatchRun(CommandContext& context, const std::vector<BatchJob>& jobs, BatchState& state,
                   const BatchOptions& options, std::function<void(size_t)> on_end)
    : context_(context),
      jobs_(jobs),
      state_(state),
      options_(options),
      on_end_(std::move(on_end)),
      signals_(context, [] {}),
      results_(jobs.size()) {
  if (options_.rate_limit == 0) return;
  rate_limit_ = std::make_shared<RateLimiter>(options_.rate_limit, ClockType::kMonotonic,
                                              [this] { return signals_.received() != 0; });
}

void BatchRun::take_over() {
  for (const size_t index : order_batch_jobs(jobs_)) {
    const BatchJob& job = jobs_[index];
    const bool all_before =
        std::ranges::all_of(job.after, [this](size_t i) { return results_[i].status == BatchStatus::kDoneBefore; });
    if (all_before && state_.is_done(job.id, job.command, job.outputs)) {
      results_[index].status = BatchStatus::kDoneBefore;
    }
  }
}

Result<void> BatchRun::run() {
  for (const BatchJob& job : jobs_) {
    waits_for_.push_back(static_cast<size_t>(
        std::ranges::count_if(job.after, [this](size_t i) { return results_[i].status != BatchStatus::kDoneBefore; })));
  }
  for (size_t index = 0; index < jobs_.size(); ++index) {
    if (waits_for_[index] == 0 && results_[index].status == BatchStatus::kNotRun) ready_.insert(index);
  }
  for (;;) {
    group_.wait_below(options_.jobs);
    stop_ = stop_ || signals_.received() != 0;
    if (!stop_ && !ready_.empty()) {
      start(*ready_.begin());
    } else if (group_.running() == 0) {
      break;
    } else {
      group_.wait_below(group_.running());  // one that ends may make others ready
    }
  }
  context_.fatal_signal = signals_.received();
  if (state_error_.has_value()) return *state_error_;
  return {};
}

void BatchRun::start(size_t index) {
  ready_.erase(index);
  group_.start([this, index]() coroutine_fn { run_job(index); }, "batch job");
  most_at_once_ = std::max(most_at_once_, group_.running());
}

void BatchRun::run_job(size_t index) {
  const BatchJob& job = jobs_[index];
  BatchResult& result = results_[index];
  const unsigned tries = job.retries.value_or(options_.retries) + 1;
  std::set<std::string> outputs(job.outputs.begin(), job.outputs.end());
  do {
    try_job(index, outputs);
  } while (result.status != BatchStatus::kDone && result.tries < tries && signals_.received() == 0);

  const auto recorded = state_.record(job.id, job.command, outputs, result.status == BatchStatus::kDone);
  if (!recorded.ok() && !state_error_.has_value()) {
    state_error_ = recorded.error();
    stop_ = true;
  }
  on_end_(index);
  settle(index);
}

/// One try. Adds the files that the job may change to `outputs`.
void BatchRun::try_job(size_t index, std::set<std::string>& outputs) {
  const BatchJob& job = jobs_[index];
  BatchResult& result = results_[index];
  result.output = {};
  Console console(context_.console, {.job = job.id}, result.output);
  CommandContext context{.registry = context_.registry, .console = console, .program = context_.program};
  context.in_batch = true;
  context.rate_limit = rate_limit_;
  context.on_output = [&outputs](const std::string& file) { outputs.insert(file); };

  bool timed_out = false;
  Timer timer(AioContext::current(), ClockType::kMonotonic, [&] {
    timed_out = true;
    context.stop_requested = SIGTERM;
  });
  if (job.timeout_ns.has_value()) timer.arm_after(*job.timeout_ns);

  const int64_t started_ns = clock_now_ns(ClockType::kMonotonic);
  Coroutine::set_inherited(&console);  // for warnings
  result.exit_code = run_command(context, job.command);
  Coroutine::set_inherited(nullptr);
  ++result.tries;
  result.seconds += static_cast<double>(clock_now_ns(ClockType::kMonotonic) - started_ns) / 1e9;

  if (result.exit_code == 0) {
    result.status = BatchStatus::kDone;
  } else if (context.fatal_signal != 0 && signals_.received() != 0) {
    result.status = BatchStatus::kInterrupted;
  } else if (context.fatal_signal != 0 && timed_out) {
    result.status = BatchStatus::kTimedOut;
    result.exit_code = kTimedOutExitCode;
  } else {
    result.status = BatchStatus::kFailed;
  }
}

int BatchRun::run_command(CommandContext& context, const std::vector<std::string>& words) {
  CommandLine line(context);
  if (const std::optional<int> early = line.parse_job(words)) return *early;
  const Result<int> result = line.command().run(context);
  return result.ok() ? *result : context.fail(1, result.error());
}

/// What follows from the end of a job.
void BatchRun::settle(size_t index) {
  if (results_[index].status == BatchStatus::kDone) {
    for (const size_t next : jobs_[index].before) {
      const bool waits = results_[next].status == BatchStatus::kNotRun;
      if (waits && --waits_for_[next] == 0) ready_.insert(next);
    }
    return;
  }
  if (!options_.keep_going) stop_ = true;
  if (results_[index].status != BatchStatus::kInterrupted) skip_those_after(index);
}

void BatchRun::skip_those_after(size_t index) {
  std::vector<size_t> left = {index};
  while (!left.empty()) {
    const size_t at = left.back();
    left.pop_back();
    for (const size_t next : jobs_[at].before) {
      BatchResult& result = results_[next];
      if (result.status != BatchStatus::kNotRun) continue;
      result.status = BatchStatus::kSkipped;
      result.reason = fmt::format("'{}' failed", jobs_[index].id);
      left.push_back(next);
    }
  }
}

}  // namespace coimg
