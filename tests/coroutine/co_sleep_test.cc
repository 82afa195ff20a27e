#include "coroutine/co_sleep.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

using test::run_due;
using test::start;
using ::testing::ElementsAre;

TEST(CoSleepTest, SleepersWakeInTheOrderOfTheirDeadlines) {
  std::vector<int> order;
  for (const int ns : {30, 10, 20}) {
    start([&order, ns]() coroutine_fn {
      co_sleep_ns(ClockType::kVirtual, ns);
      order.push_back(ns);
    });
  }
  run_due();
  EXPECT_TRUE(order.empty());
  AioContext::current().advance_virtual_clock(15);
  run_due();
  EXPECT_THAT(order, ElementsAre(10));
  AioContext::current().advance_virtual_clock(100);
  run_due();
  EXPECT_THAT(order, ElementsAre(10, 20, 30));
}

TEST(CoSleepTest, ATimeBeforeAllTimesIsOver) {
  int ended = 0;
  start([&]() coroutine_fn {
    co_sleep_ns(ClockType::kMonotonic, INT64_MIN);
    co_sleep_ns(ClockType::kRealtime, INT64_MIN);
    ++ended;
  });
  Timer timer(AioContext::current(), ClockType::kMonotonic, [&] { ++ended; });
  timer.arm_at(INT64_MIN);
  test::run_until([&] { return ended == 2; });
}

TEST(CoSleepTest, RealTimePasses) {
  bool woke = false;
  const int64_t begin = clock_now_ns(ClockType::kMonotonic);
  start([&]() coroutine_fn {
    co_sleep_ns(ClockType::kMonotonic, 3'000'000);
    woke = true;
  });
  test::run_until([&] { return woke; });
  EXPECT_GE(clock_now_ns(ClockType::kMonotonic) - begin, 3'000'000);
}

TEST(CoSleepTest, SleepingForNoTimeStillLetsTheLoopRun) {
  std::vector<int> order;
  start([&]() coroutine_fn {
    co_sleep_ns(ClockType::kMonotonic, 0);
    order.push_back(2);
  });
  order.push_back(1);
  test::run_until([&] { return order.size() == 2; });
  EXPECT_THAT(order, ElementsAre(1, 2));
}

TEST(CoSleepTest, WakeEndsTheSleepEarlyAndTheResultSaysSo) {
  CoSleep sleep;
  std::vector<bool> results;
  start([&]() coroutine_fn {
    results.push_back(sleep.sleep_ns(ClockType::kVirtual, 1'000'000));
    results.push_back(sleep.sleep_ns(ClockType::kVirtual, 10));
  });
  sleep.wake();
  run_due();
  EXPECT_THAT(results, ElementsAre(false));
  AioContext::current().advance_virtual_clock(10);
  run_due();
  EXPECT_THAT(results, ElementsAre(false, true));
  sleep.wake();  // nobody sleeps
}

TEST(CoSleepTest, ADeadlineThatComesBetweenWakeAndRunChangesNothing) {
  CoSleep sleep;
  std::vector<bool> results;
  start([&]() coroutine_fn { results.push_back(sleep.sleep_ns(ClockType::kVirtual, 10)); });
  sleep.wake();
  AioContext::current().advance_virtual_clock(20);
  run_due();
  EXPECT_THAT(results, ElementsAre(false));
}

TEST(CoSleepTest, ThousandsSleepAtOnce) {
  constexpr int kSleepers = 3000;
  int woken = 0;
  int64_t last = 0;
  for (int i = 0; i < kSleepers; ++i) {
    start([&, i]() coroutine_fn {
      const int64_t ns = (int64_t{i} * 7919) % kSleepers;
      co_sleep_ns(ClockType::kVirtual, ns + 1);
      EXPECT_GE(ns, last);
      last = ns;
      ++woken;
    });
  }
  AioContext::current().advance_virtual_clock(kSleepers);
  run_due();
  EXPECT_EQ(woken, kSleepers);
}

class SocketPair {
 public:
  SocketPair() { EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds_), 0); }
  ~SocketPair() {
    ::close(fds_[0]);
    ::close(fds_[1]);
  }
  int operator[](int i) const { return fds_[i]; }

 private:
  int fds_[2];
};

TEST(YieldUntilFdTest, AReaderAndAWriterWaitForOneFdAtTheSameTime) {
  SocketPair sockets;
  const std::string chunk(64 * 1024, 'x');
  size_t filled = 0;
  for (ssize_t n; (n = ::write(sockets[0], chunk.data(), chunk.size())) > 0;) filled += static_cast<size_t>(n);
  std::vector<std::string> order;
  start([&]() coroutine_fn {
    yield_until_fd_readable(sockets[0]);
    order.push_back("readable");
  });
  start([&]() coroutine_fn {
    yield_until_fd_writable(sockets[0]);
    order.push_back("writable");
  });
  run_due();
  EXPECT_TRUE(order.empty());
  ASSERT_EQ(::write(sockets[1], "a", 1), 1);
  run_due();
  EXPECT_THAT(order, ElementsAre("readable"));
  std::string drain(filled, 0);
  for (size_t got = 0; got < filled;) {
    const ssize_t n = ::read(sockets[1], drain.data(), drain.size());
    ASSERT_GT(n, 0);
    got += static_cast<size_t>(n);
  }
  run_due();
  EXPECT_THAT(order, ElementsAre("readable", "writable"));
}

TEST(YieldUntilFdTest, TheEndOfAStreamCountsAsReadable) {
  int fds[2];
  ASSERT_EQ(::pipe(fds), 0);
  bool ended = false;
  start([&]() coroutine_fn {
    yield_until_fd_readable(fds[0]);
    ended = true;
  });
  run_due();
  EXPECT_FALSE(ended);
  ::close(fds[1]);
  run_due();
  EXPECT_TRUE(ended);
  ::close(fds[0]);
}

TEST(YieldUntilFdTest, ARegularFileIsAlwaysReady) {
  const int fd = ::open("/proc/self/exe", O_RDONLY);
  ASSERT_GE(fd, 0);
  bool ready = false;
  start([&]() coroutine_fn {
    yield_until_fd_readable(fd);
    ready = true;
  });
  test::run_until([&] { return ready; });
  ::close(fd);
}

TEST(YieldUntilFdDeathTest, EnteringOneThatWaitsNamesItAndTheFd) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a forked one would share the epoll instance
  EventNotifier quiet;
  using Wait = void (*)(int);
  for (const bool writable : {false, true}) {
    if (writable) ::eventfd_write(quiet.fd(), UINT64_MAX - 1);  // full
    const Wait wait =
        writable ? static_cast<Wait>(yield_until_fd_writable) : static_cast<Wait>(yield_until_fd_readable);
    EXPECT_DEATH(
        {
          Coroutine* reader = start([&]() coroutine_fn { wait(quiet.fd()); }, "reader");
          reader->enter();
        },
        "coroutine 'reader' was entered while it waits for fd ");
  }
}

TEST(CoSleepDeathTest, DestroyingOneWithASleeperNamesIt) {
  EXPECT_DEATH(
      {
        CoSleep sleep;
        start([&]() coroutine_fn { sleep.sleep_ns(ClockType::kVirtual, 1); }, "tired");
      },
      "CoSleep destroyed while coroutine 'tired' sleeps");
}

}  // namespace
}  // namespace coimg
