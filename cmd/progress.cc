#include "cmd/progress.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <vector>

#include "coroutine/aio_context.h"
#include "coroutine/main_loop.h"

namespace coimg {

namespace {

std::string describe(double percent) { return fmt::format("    ({:.2f}/100%)", percent); }

/// Those that SIGUSR1 asks: the jobs of a batch run side by side.
std::vector<Progress*>& asked_by_signal() {
  static std::vector<Progress*> objects;
  return objects;
}

}  // namespace

Progress::Progress(Console& console, bool enabled, double step_percent)
    : console_(console),
      enabled_(enabled && !console.format().json_progress),
      step_percent_(step_percent),
      json_(console.format().json_progress) {
  if (!enabled_) {
    asked_by_signal().push_back(this);
    MainLoop::set_signal_handler(SIGUSR1, tell_all);
    started_ns_ = clock_now_ns(ClockType::kMonotonic);
    next_line_ns_ = started_ns_ + kJsonIntervalNs;
    return;
  }
  console_.out(describe(0) + "\r");
  console_.flush_out();
}

Progress::~Progress() {
  if (enabled_) {
    console_.out("\n");
  } else {
    std::erase(asked_by_signal(), this);  // the handler stays: the signal must never end the program
  }
}

void Progress::tell_all() {
  for (Progress* const progress : asked_by_signal()) progress->on_signal();
}

void Progress::update(uint64_t done, uint64_t total) {
  const double percent =
      done >= total ? 100 : std::min(100.0 * static_cast<double>(done) / static_cast<double>(total), 100.0);
  total_ = total;
  if (enabled_) {
    if (percent < 100 && percent - shown_percent_ < step_percent_) return;
    shown_percent_ = percent;
    console_.out(describe(percent) + "\r");
    console_.flush_out();
    return;
  }
  if (json_ && done < total && clock_now_ns(ClockType::kMonotonic) >= next_line_ns_) show_json(done, percent);
  if (line_requested_) {
    line_requested_ = false;
    console_.note(describe(percent));
  }
}

void Progress::finish() {
  if (json_) {
    show_json(total_, 100);
  } else {
    update(1, 1);
  }
}

void Progress::show_json(uint64_t done, double percent) {
  const int64_t now = clock_now_ns(ClockType::kMonotonic);
  next_line_ns_ = now + kJsonIntervalNs;
  const double seconds = static_cast<double>(std::max<int64_t>(now - started_ns_, 1)) / 1e9;
  console_.progress(done, total_, percent, static_cast<uint64_t>(static_cast<double>(done) / seconds));
}

}  // namespace coimg
