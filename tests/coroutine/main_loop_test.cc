#include "coroutine/main_loop.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <thread>

#include "coroutine/co_sleep.h"
#include "coroutine/coroutine.h"
#include "tests/coroutine/loop.h"
#include "tests/coroutine/refuse_syscall.h"

namespace coimg {
namespace {

class MainLoopTest : public testing::Test {
 protected:
  void SetUp() override { MainLoop::init(); }
};

using MainLoopDeathTest = MainLoopTest;

bool is_blocked(int signal_number) {
  sigset_t set;
  pthread_sigmask(SIG_SETMASK, nullptr, &set);
  return sigismember(&set, signal_number) == 1;
}

pid_t start_child(int exit_code) {
  const pid_t child = fork();
  if (child == 0) _exit(exit_code);
  return child;
}

TEST_F(MainLoopTest, ItIsTheContextOfTheThreadThatMadeIt) {
  MainLoop::init();
  EXPECT_EQ(&MainLoop::context(), &AioContext::current());
}

TEST_F(MainLoopTest, SignalsAreDeliveredByTheLoop) {
  int calls = 0;
  MainLoop::set_signal_handler(SIGUSR1, [&] { ++calls; });
  EXPECT_TRUE(is_blocked(SIGUSR1));
  kill(getpid(), SIGUSR1);
  EXPECT_EQ(calls, 0);
  test::run_until([&] { return calls == 1; });
  kill(getpid(), SIGUSR1);
  test::run_until([&] { return calls == 2; });
  MainLoop::set_signal_handler(SIGUSR1, nullptr);
  EXPECT_FALSE(is_blocked(SIGUSR1));
}

TEST_F(MainLoopTest, EachSignalHasItsHandler) {
  std::map<int, int> calls;
  for (const int number : {SIGUSR1, SIGUSR2, SIGHUP}) {
    MainLoop::set_signal_handler(number, [&calls, number] { ++calls[number]; });
  }
  MainLoop::set_signal_handler(SIGUSR2, [&] { calls[SIGUSR2] += 100; });
  for (const int number : {SIGHUP, SIGUSR2, SIGUSR1}) kill(getpid(), number);
  test::run_until([&] { return calls.size() == 3; });
  EXPECT_EQ(calls, (std::map<int, int>{{SIGUSR1, 1}, {SIGUSR2, 100}, {SIGHUP, 1}}));
  for (const int number : {SIGUSR1, SIGUSR2, SIGHUP}) MainLoop::set_signal_handler(number, nullptr);
}

TEST_F(MainLoopTest, AHandlerMayRemoveItself) {
  bool called = false;
  MainLoop::set_signal_handler(SIGUSR1, [&called] {
    MainLoop::set_signal_handler(SIGUSR1, nullptr);
    called = true;
  });
  kill(getpid(), SIGUSR1);
  test::run_until([&] { return called; });
  EXPECT_FALSE(is_blocked(SIGUSR1));
}

TEST_F(MainLoopTest, ASignalThatWasBlockedBeforeStaysSo) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  MainLoop::set_signal_handler(SIGUSR2, [] {});
  MainLoop::set_signal_handler(SIGUSR2, nullptr);
  EXPECT_TRUE(is_blocked(SIGUSR2));
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

TEST_F(MainLoopTest, NotifyEventEndsAWait) {
  std::thread notifier([] { MainLoop::notify_event(); });
  MainLoop::wait(false);
  notifier.join();
  while (MainLoop::wait(true)) {
  }
}

TEST_F(MainLoopTest, FdHandlersAreCalled) {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  eventfd_t value = 0;
  MainLoop::set_fd_handler(fd, [&] { eventfd_read(fd, &value); }, nullptr);
  eventfd_write(fd, 5);
  test::run_until([&] { return value != 0; });
  EXPECT_EQ(value, 5U);
  MainLoop::set_fd_handler(fd, nullptr, nullptr);
  close(fd);
}

TEST_F(MainLoopTest, AChildsStatusIsReported) {
  int status = -1;
  MainLoop::add_child_watch(start_child(3), [&](int s) { status = s; });
  test::run_until([&] { return status != -1; });
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 3);

  status = -1;
  const pid_t child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  MainLoop::add_child_watch(child, [&](int s) { status = s; });
  kill(child, SIGKILL);
  test::run_until([&] { return status != -1; });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
}

TEST_F(MainLoopTest, AChildThatEndedBeforeIsReportedToo) {
  const pid_t child = start_child(5);
  siginfo_t info = {};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  int status = -1;
  MainLoop::add_child_watch(child, [&](int s) { status = s; });
  test::run_until([&] { return status != -1; });
  EXPECT_EQ(WEXITSTATUS(status), 5);
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), -1) << "the watch has reaped it";
}

TEST_F(MainLoopTest, ManyChildrenAreWatched) {
  std::map<int, int> codes;
  for (int i = 0; i < 20; ++i) {
    MainLoop::add_child_watch(start_child(i), [&codes, i](int status) { codes[i] = WEXITSTATUS(status); });
  }
  test::run_until([&] { return codes.size() == 20; });
  for (const auto& [i, code] : codes) EXPECT_EQ(i, code);
}

TEST_F(MainLoopTest, AChildThatSomebodyElseReapedCountsAs255) {
  int signals = 0;
  MainLoop::set_signal_handler(SIGCHLD, [&] { ++signals; });
  const pid_t child = start_child(0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  int status = -1;
  MainLoop::add_child_watch(child, [&](int s) { status = s; });
  test::run_until([&] { return status != -1; });
  EXPECT_EQ(WEXITSTATUS(status), 255);
  signals = 0;
  raise(SIGCHLD);
  test::run_until([&] { return signals != 0; });  // its handler has stayed
  MainLoop::set_signal_handler(SIGCHLD, nullptr);
}

TEST_F(MainLoopDeathTest, ChildrenAreWatchedWithoutPidfds) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        if (!test::refuse_syscall(SYS_pidfd_open, ENOSYS)) _exit(1);
        int sum = 0;
        int ended = 0;
        const auto on_exit = [&](int status) {
          sum += WEXITSTATUS(status);
          ++ended;
        };
        const pid_t slow = fork();
        if (slow == 0) {
          std::this_thread::sleep_for(std::chrono::milliseconds(50));
          _exit(30);
        }
        MainLoop::add_child_watch(slow, on_exit);
        for (int i = 1; i <= 3; ++i) MainLoop::add_child_watch(start_child(i), on_exit);
        test::run_until([&] { return ended == 4; });
        _exit(sum);
      },
      testing::ExitedWithCode(36), "");
}

TEST(RunInMainLoopTest, ItRunsABodyInACoroutineToItsEnd) {
  bool ended = false;
  run_in_main_loop([&]() coroutine_fn {
    EXPECT_TRUE(Coroutine::in_coroutine());
    co_sleep_ns(ClockType::kMonotonic, 100'000);
    ended = true;
  });
  EXPECT_TRUE(ended);
  EXPECT_FALSE(Coroutine::in_coroutine());
}

TEST(RunInMainLoopTest, ItWorksRepeatedlyAndInEveryThread) {
  std::atomic<int> runs{0};
  const auto run_some = [&] {
    for (int i = 0; i < 50; ++i) {
      run_in_main_loop([&]() coroutine_fn {
        test::pause();
        ++runs;
      });
    }
  };
  run_some();
  std::thread other(run_some);
  run_some();
  other.join();
  EXPECT_EQ(runs.load(), 150);
}

TEST(RunInMainLoopTest, TheBodyMayEndInAnotherThread) {
  for (int i = 0; i < 20; ++i) {
    test::LoopThread other;
    bool moved = false;
    run_in_main_loop([&]() coroutine_fn {
      AioContext::reschedule_self(other.context());
      moved = test::thread_id() == other.id();
    });
    EXPECT_TRUE(moved);
  }
}

// Under a sanitizer: whoever ended the body touches nothing that goes with the thread that waited.
TEST(RunInMainLoopTest, TheLoopMayGoWhenTheBodyHasEndedInAnotherThread) {
  test::LoopThread other;
  for (int i = 0; i < 500; ++i) {
    std::thread([&] {
      AioContext& own = AioContext::current();
      bool stop = false;
      std::unique_ptr<BottomHalf> busy;  // the loop never sleeps, so that it sees the end at once
      busy = own.new_bottom_half([&] {
        if (!stop) busy->schedule();
      });
      busy->schedule();
      run_in_main_loop([&]() coroutine_fn { AioContext::reschedule_self(other.context()); });
      stop = true;
    }).join();
  }
}

TEST(RunInMainLoopTest, OthersRunMeanwhile) {
  int steps = 0;
  bool stop = false;
  test::start([&]() coroutine_fn {
    while (!stop) {
      ++steps;
      test::pause();
    }
  });
  run_in_main_loop([&]() coroutine_fn {
    while (steps < 10) test::pause();
    stop = true;
  });
  EXPECT_GE(steps, 10);
  test::run_due();
}

TEST(RunInMainLoopDeathTest, ItAbortsInsideACoroutine) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(test::start(
                   []() coroutine_fn {
                     void (*run)(const std::function<void()>&) = &run_in_main_loop;  // hides it from the static check
                     run([]() coroutine_fn {});
                   },
                   "nested one"),
               "coroutine 'nested one' called run_in_main_loop");
}

}  // namespace
}  // namespace coimg
