// The main loop: the AioContext of the program's first thread, with signals and children.
#pragma once

#include <sys/types.h>

#include <functional>

#include "coroutine/aio_context.h"
#include "coroutine/annotations.h"

namespace coimg {

/// The loop that a program runs on. Everything but notify_event() is for the thread that called init(); other threads
/// touch what belongs to it under the big lock (big_lock.h).
class MainLoop {
 public:
  /// Makes the calling thread the main one, which holds the big lock from now on. Idempotent. Before anything else
  /// here; aborts otherwise. Then set_signal_handler(), as it blocks signals for threads to come; then threads.
  static void init();
  static AioContext& context();

  /// Runs one iteration; with `nonblocking` does not wait for events.
  static bool wait(bool nonblocking) no_coroutine_fn;
  /// Wakes a waiting loop. Thread-safe and signal-safe.
  static void notify_event();

  /// Delivers a signal as a callback on the loop, through a signalfd. Replaces an earlier handler of that signal; an
  /// empty function restores what the process had before.
  ///
  /// Blocks the signal in the calling thread. Threads inherit that, so call it before starting some (the worker pool's
  /// block all signals anyway). So do children: reset their signal mask before exec.
  static void set_signal_handler(int signal_number, std::function<void()> handler);

  static void set_fd_handler(int fd, std::function<void()> on_readable, std::function<void()> on_writable);

  /// Calls `on_exit` on the loop with the wait status of the child when it ends, and reaps it. A process that is not
  /// (no more) our child counts as exited with 255. Where the kernel has no pidfds, it takes the handler of SIGCHLD.
  static void add_child_watch(pid_t pid, std::function<void(int status)> on_exit);
};

/// Runs `body` (a coroutine_fn) in a coroutine that a bottom half on the calling thread's loop starts, and runs the
/// loop until it returns. The one door from plain code into coroutines.
void run_in_main_loop(const std::function<void()>& body) no_coroutine_fn;

}  // namespace coimg
