// The main loop: signals by signalfd, children by pidfd, and the door from plain code into coroutines.
#include "coroutine/main_loop.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "coroutine/aio_context_impl.h"
#include "coroutine/big_lock.h"
#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"

namespace coimg {

namespace {

/// Reported for a child whose status somebody else took: as if it had exited with 255.
constexpr int kLostStatus = 255 << 8;

[[noreturn]] void call_failed(const char* call) {
  fatal("main loop: %s failed: %s", call, std::strerror(errno));  // NOLINT(concurrency-mt-unsafe)
}

struct SignalHandler {
  std::function<void()> callback;
  bool was_blocked = false;  ///< before we took the signal
};

struct Child {
  pid_t pid;
  std::function<void(int)> on_exit;
};

/// Everything but the context's pointer belongs to the main thread.
struct State {
  AioContext* context = nullptr;
  int signal_fd = -1;
  std::map<int, SignalHandler> signals;
  std::vector<Child> children;  ///< those without a pidfd
};

/// Never destroyed: handlers may be removed by the destructors of static objects.
State& state() {
  static State* const instance = new State;
  return *instance;
}

sigset_t one_signal(int signal_number) {
  sigset_t set;
  sigemptyset(&set);
  if (sigaddset(&set, signal_number) != 0) call_failed("sigaddset");
  return set;
}

/// Calls the handler by copy, as it may replace itself.
void dispatch_signal(int signal_number) {
  const auto found = state().signals.find(signal_number);
  if (found == state().signals.end()) return;
  const std::function<void()> callback = found->second.callback;
  callback();
}

void read_signals() {
  signalfd_siginfo info;
  while (read(state().signal_fd, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    dispatch_signal(static_cast<int>(info.ssi_signo));
  }
}

/// Makes the signalfd deliver what has a handler.
void update_signal_fd() {
  State& s = state();
  sigset_t set;
  sigemptyset(&set);
  for (const auto& [number, handler] : s.signals) sigaddset(&set, number);
  const int fd = signalfd(s.signal_fd, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  if (fd < 0) call_failed("signalfd");
  if (s.signal_fd >= 0) return;
  s.signal_fd = fd;
  s.context->set_fd_handler(fd, read_signals, nullptr);
}

/// Reaps `pid` if it has ended. Returns false while it runs.
bool try_reap(pid_t pid, int& status) {
  pid_t result = 0;
  do {
    result = waitpid(pid, &status, WNOHANG);
  } while (result < 0 && errno == EINTR);
  if (result < 0) status = kLostStatus;
  return result != 0;
}

/// On SIGCHLD, for children without a pidfd. One signal may stand for several children.
void reap_children() {
  std::vector<Child>& children = state().children;
  for (size_t i = 0; i < children.size();) {
    int status = 0;
    if (!try_reap(children[i].pid, status)) {
      ++i;
      continue;
    }
    const auto on_exit = std::move(children[i].on_exit);
    children.erase(children.begin() + static_cast<ptrdiff_t>(i));
    on_exit(status);
    i = 0;  // the callback may have added or removed some
  }
}

int open_pidfd(pid_t pid) { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }

}  // namespace

void MainLoop::init() CO_NO_THREAD_SAFETY_ANALYSIS {
  State& s = state();
  if (s.context != nullptr) return;
  s.context = &AioContext::current();
  big_lock.lock();
  s.context->impl().holds_big_lock = true;
  // A parent may have left SIGCHLD ignored, and then the kernel throws the children's statuses away.
  struct sigaction action{};
  if (sigaction(SIGCHLD, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) {
    action.sa_handler = SIG_DFL;
    sigaction(SIGCHLD, &action, nullptr);
  }
}

AioContext& MainLoop::context() {
  if (state().context == nullptr) fatal("the main loop is used before MainLoop::init()");
  return *state().context;
}

bool MainLoop::wait(bool nonblocking) { return context().poll(!nonblocking); }

void MainLoop::notify_event() { context().notify(); }

void MainLoop::set_signal_handler(int signal_number, std::function<void()> handler) {
  static_cast<void>(context());
  State& s = state();
  const sigset_t set = one_signal(signal_number);
  const auto found = s.signals.find(signal_number);
  if (handler != nullptr) {
    if (found != s.signals.end()) {
      found->second.callback = std::move(handler);
      return;
    }
    sigset_t before;
    pthread_sigmask(SIG_BLOCK, &set, &before);
    s.signals[signal_number] = {std::move(handler), sigismember(&before, signal_number) == 1};
    update_signal_fd();
  } else if (found != s.signals.end()) {
    const bool was_blocked = found->second.was_blocked;
    s.signals.erase(found);
    update_signal_fd();
    if (!was_blocked) pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  }
}

void MainLoop::set_fd_handler(int fd, std::function<void()> on_readable, std::function<void()> on_writable) {
  context().set_fd_handler(fd, std::move(on_readable), std::move(on_writable));
}

void MainLoop::add_child_watch(pid_t pid, std::function<void(int status)> on_exit) {
  AioContext& loop = context();
  const int fd = open_pidfd(pid);
  if (fd < 0 && errno == ESRCH) {  // no such child, or somebody has reaped it
    loop.schedule_oneshot([on_exit = std::move(on_exit)] { on_exit(kLostStatus); }, "lost child");
    return;
  }
  if (fd < 0) {
    // No pidfd to be had (kernels before 5.3, a sandbox, too many files): SIGCHLD tells, and the look at once of a
    // child that ended before we listen.
    state().children.push_back({pid, std::move(on_exit)});
    set_signal_handler(SIGCHLD, reap_children);
    loop.schedule_oneshot(reap_children, "reap children");
    return;
  }
  loop.set_fd_handler(
      fd,
      [&loop, fd, pid, on_exit = std::move(on_exit)] {
        int status = 0;
        if (!try_reap(pid, status)) return;
        const auto callback = on_exit;  // removing the handler destroys the captures
        loop.set_fd_handler(fd, nullptr, nullptr);
        close(fd);
        callback(status);
      },
      nullptr);
}

void run_in_main_loop(const std::function<void()>& body) {
  if (const Coroutine* co = Coroutine::self_or_null()) {
    fatal("coroutine '%s' called run_in_main_loop(), which is for plain code", co->name());
  }
  AioContext& loop = AioContext::current();
  bool done = false;  // of this thread
  Coroutine* const co = Coroutine::create(
      [&]() coroutine_fn noexcept {
        body();
        // It may be in another thread by now, and the caller may free the loop as soon as it sees `done`: so the loop
        // sets that itself.
        loop.schedule_oneshot([&done] { done = true; }, "end of main");
      },
      "main");
  const auto start = loop.new_bottom_half([co] { co->enter(); }, "run in main loop");
  start->schedule();
  while (!done) loop.poll(true);
}

}  // namespace coimg
