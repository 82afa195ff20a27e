#include "cmd/progress.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>

#include "coroutine/main_loop.h"

namespace coimg {

namespace {

std::string describe(double percent) { return fmt::format("    ({:.2f}/100%)", percent); }

}  // namespace

Progress::Progress(Console& console, bool enabled, double step_percent)
    : console_(console), enabled_(enabled), step_percent_(step_percent) {
  if (!enabled_) {
    MainLoop::set_signal_handler(SIGUSR1, [this] { line_requested_ = true; });
    return;
  }
  console_.out(describe(0) + "\r");
  console_.flush_out();
}

Progress::~Progress() {
  if (enabled_) {
    console_.out("\n");
  } else {
    MainLoop::set_signal_handler(SIGUSR1, [] {});  // it must never end the program
  }
}

void Progress::update(uint64_t done, uint64_t total) {
  const double percent =
      done >= total ? 100 : std::min(100.0 * static_cast<double>(done) / static_cast<double>(total), 100.0);
  if (enabled_) {
    if (percent < 100 && percent - shown_percent_ < step_percent_) return;
    shown_percent_ = percent;
    console_.out(describe(percent) + "\r");
    console_.flush_out();
  } else if (line_requested_) {
    line_requested_ = false;
    console_.note(describe(percent));
  }
}

}  // namespace coimg
