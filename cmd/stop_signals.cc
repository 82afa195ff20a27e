#include "cmd/stop_signals.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "coroutine/main_loop.h"

namespace coimg {

namespace {

/// All that live, and the signals that are handled for them.
struct Listeners {
  std::vector<StopSignals*> objects;
  std::vector<int> handled;
};

Listeners& listeners() {
  static Listeners all;
  return all;
}

}  // namespace

StopSignals::StopSignals(const CommandContext& context, std::function<void()> before_death)
    : context_(context), before_death_(std::move(before_death)) {
  Listeners& all = listeners();
  all.objects.push_back(this);
  if (all.objects.size() > 1) return;
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action{};
    if (sigaction(number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) continue;
    MainLoop::set_signal_handler(number, [number] { on_signal(number); });
    all.handled.push_back(number);
  }
}

StopSignals::~StopSignals() {
  Listeners& all = listeners();
  std::erase(all.objects, this);
  if (!all.objects.empty()) return;
  for (const int number : all.handled) MainLoop::set_signal_handler(number, nullptr);
  all.handled.clear();
}

void StopSignals::on_signal(int signal_number) {
  const std::vector<StopSignals*>& objects = listeners().objects;
  // One that began after the first signal has not been told yet; it does not keep the others alive.
  const bool again = std::ranges::any_of(objects, [](const StopSignals* object) { return object->received_ != 0; });
  for (StopSignals* const object : objects) {
    if (again) object->before_death_();
    object->received_ = signal_number;
  }
  if (again) die_of_signal(signal_number);
}

void die_of_signal(int signal_number) {
  signal(signal_number, SIG_DFL);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal_number);
  raise(signal_number);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  _exit(128 + signal_number);  // the signal's default action did not end us
}

}  // namespace coimg
