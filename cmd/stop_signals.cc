#include "cmd/stop_signals.h"

#include <signal.h>
#include <unistd.h>

#include <utility>

#include "coroutine/main_loop.h"

namespace coimg {

StopSignals::StopSignals(std::function<void()> before_death) : before_death_(std::move(before_death)) {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action{};
    if (sigaction(number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) continue;
    MainLoop::set_signal_handler(number, [this, number] { on_signal(number); });
    handled_.push_back(number);
  }
}

StopSignals::~StopSignals() {
  for (const int number : handled_) MainLoop::set_signal_handler(number, nullptr);
}

void StopSignals::on_signal(int signal_number) {
  if (received_ != 0) {
    before_death_();
    die_of_signal(signal_number);
  }
  received_ = signal_number;
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
