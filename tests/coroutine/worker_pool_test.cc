#include "coroutine/worker_pool.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <expected>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "coroutine/co_group.h"
#include "coroutine/co_sleep.h"
#include "coroutine/compiler.h"
#include "coroutine/main_loop.h"
#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

/// Sets the bound for a scope.
class MaxThreads {
 public:
  explicit MaxThreads(unsigned count) : before_(WorkerPool::instance().max_threads()) {
    WorkerPool::instance().set_max_threads(count);
  }
  ~MaxThreads() { WorkerPool::instance().set_max_threads(before_); }
  MaxThreads(const MaxThreads&) = delete;
  MaxThreads& operator=(const MaxThreads&) = delete;

 private:
  unsigned before_;
};

TEST(WorkerPoolTest, AJobsResultComesBack) {
  run_in_main_loop([]() coroutine_fn {
    EXPECT_EQ(co_run_on_worker([] { return 42; }), 42);
    EXPECT_EQ(*co_run_on_worker([] { return std::make_unique<std::string>("moved"); }), "moved");
    bool ran = false;
    co_run_on_worker([&] { ran = true; });
    EXPECT_TRUE(ran);
  });
}

TEST(WorkerPoolTest, ErrorsComeBackAsValuesOrAsExceptions) {
  run_in_main_loop([]() coroutine_fn {
    const auto failed =
        co_run_on_worker([]() -> std::expected<int, std::string> { return std::unexpected("no disk"); });
    EXPECT_EQ(failed.error(), "no disk");
    std::string caught;
    try {
      co_run_on_worker([]() -> int { throw std::runtime_error("thrown by a job"); });
    } catch (const std::runtime_error& error) {
      caught = error.what();
    }
    EXPECT_EQ(caught, "thrown by a job");
    EXPECT_THROW(co_run_on_worker([] { throw 7; }), int);
  });
}

TEST(WorkerPoolTest, JobsRunElsewhereAndTheCoroutineGoesOnAtHome) {
  run_in_main_loop([]() coroutine_fn {
    const std::thread::id home = test::thread_id();
    for (int i = 0; i < 20; ++i) {
      EXPECT_NE(co_run_on_worker([] { return test::thread_id(); }), home);
      EXPECT_EQ(test::thread_id(), home);
    }
  });
}

TEST(WorkerPoolTest, SignalsAreBlockedInWorkers) {
  run_in_main_loop([]() coroutine_fn {
    const sigset_t blocked = co_run_on_worker([] {
      sigset_t set;
      pthread_sigmask(SIG_SETMASK, nullptr, &set);
      return set;
    });
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGCHLD, SIGWINCH}) {
      EXPECT_EQ(sigismember(&blocked, number), 1) << number;
    }
    for (const int number : {SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP}) {
      EXPECT_EQ(sigismember(&blocked, number), 0) << number << ", which instructions raise";
    }
  });
  sigset_t here;
  pthread_sigmask(SIG_SETMASK, nullptr, &here);
  EXPECT_EQ(sigismember(&here, SIGTERM), 0);
}

TEST(WorkerPoolTest, TheLoopGoesOnWhileAJobBlocks) {
  run_in_main_loop([]() coroutine_fn {
    std::promise<void> released;
    CoGroup group;
    bool done = false;
    group.start([&]() coroutine_fn {
      co_run_on_worker([&] { released.get_future().wait(); });
      done = true;
    });
    group.start([&]() coroutine_fn {
      EXPECT_FALSE(done);
      released.set_value();
    });
    group.wait_all();
    EXPECT_TRUE(done);
  });
}

TEST(WorkerPoolTest, OneWorkerRunsJobsInTheOrderOfSubmission) {
  const MaxThreads bound(1);
  std::vector<int> order;
  run_in_main_loop([&]() coroutine_fn {
    CoGroup group;
    for (int i = 0; i < 100; ++i) {
      group.start([&order, i]() coroutine_fn { co_run_on_worker([&] { order.push_back(i); }); });
    }
    group.wait_all();
  });
  ASSERT_EQ(order.size(), 100U);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(WorkerPoolTest, AJobThatIsNotBegunInTimeIsTakenBack) {
  const MaxThreads bound(1);
  run_in_main_loop([]() coroutine_fn {
    std::promise<void> gate;
    std::atomic<bool> begun = false;
    CoGroup group;
    group.start([&]() coroutine_fn {
      co_run_on_worker([&] {
        begun = true;
        gate.get_future().wait();
      });
    });
    while (!begun) co_sleep_ns(ClockType::kMonotonic, 100'000);
    bool ran = false;
    const auto soon = Deadline::after(ClockType::kMonotonic, 1'000'000);
    EXPECT_FALSE(co_run_on_worker_until(soon, [&] { ran = true; }).has_value());
    gate.set_value();
    group.wait_all();
    co_run_on_worker([] {});  // behind the one that was taken back
    EXPECT_FALSE(ran);
  });
}

TEST(WorkerPoolTest, AJobThatIsBegunInTimeIsWaitedFor) {
  run_in_main_loop([]() coroutine_fn {
    std::promise<void> begun;
    const auto slow = [&] {
      begun.set_value();
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      return 42;
    };
    EXPECT_EQ(co_run_on_worker_until(Deadline::after(ClockType::kMonotonic, 10'000'000'000), slow), 42);
    EXPECT_EQ(co_run_on_worker_until(Deadline::never(), [] {}), true);
    const auto late = Deadline::at(ClockType::kMonotonic, 0);
    // Whoever is first, worker or deadline: all of the job has been done or nothing.
    int done = 0;
    const bool ran = co_run_on_worker_until(late, [&] { ++done; }).has_value();
    EXPECT_EQ(done, ran ? 1 : 0);
  });
}

TEST(WorkerPoolTest, JobsRunBesideEachOtherUpToTheBound) {
  constexpr unsigned kBound = 3;
  const MaxThreads bound(kBound);
  std::atomic<unsigned> running{0};
  std::atomic<unsigned> most{0};
  run_in_main_loop([&]() coroutine_fn {
    CoGroup group;
    for (int i = 0; i < 60; ++i) {
      group.start([&]() coroutine_fn {
        co_run_on_worker([&] {
          const unsigned now = ++running;
          unsigned seen = most.load();
          while (seen < now && !most.compare_exchange_weak(seen, now)) {
          }
          std::this_thread::sleep_for(std::chrono::milliseconds(2));
          --running;
        });
      });
    }
    group.wait_all();
  });
  EXPECT_EQ(most.load(), kBound);
}

TEST(WorkerPoolTest, AStrandsJobsRunOneAtATimeInTheOrderOfSubmission) {
  constexpr int kJobs = 500;
  std::atomic<int> running{0}, most{0}, others{0};
  std::vector<int> order;
  run_in_main_loop([&]() coroutine_fn {
    WorkerStrand strand;
    CoGroup group;
    for (int i = 0; i < kJobs; ++i) {
      group.start([&, i]() coroutine_fn {
        const auto job = [&] {
          if (++running > most) most = running.load();
          order.push_back(i);
          --running;
        };
        WorkerPool::instance().run(job, &strand);
      });
      group.start([&]() coroutine_fn { co_run_on_worker([&] { ++others; }); });
      if (i % 50 == 0) co_sleep_ns(ClockType::kMonotonic, 1000);
    }
    group.wait_all();
  });
  EXPECT_EQ(most, 1);
  EXPECT_EQ(others, kJobs);
  ASSERT_EQ(order.size(), size_t{kJobs});
  for (int i = 0; i < kJobs; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(WorkerPoolTest, AJobOfAStrandThatHasNotBegunIsTakenBack) {
  const auto soon = [] { return Deadline::after(ClockType::kMonotonic, 1'000'000); };
  for (const bool stands_in_the_pools_queue : {false, true}) {
    const MaxThreads bound(1);
    run_in_main_loop([&]() coroutine_fn {
      WorkerStrand strand;
      std::promise<void> gate;
      std::atomic<bool> begun = false, second = false, third = false;
      CoGroup group;
      group.start([&]() coroutine_fn {
        const auto blocker = [&] {
          begun = true;
          gate.get_future().wait();
        };
        WorkerPool::instance().run(blocker, stands_in_the_pools_queue ? nullptr : &strand);
      });
      while (!begun) co_sleep_ns(ClockType::kMonotonic, 100'000);
      bool ran = true;
      group.start(
          [&]() coroutine_fn { ran = WorkerPool::instance().run_until(soon(), [&] { second = true; }, &strand); });
      group.start([&]() coroutine_fn { WorkerPool::instance().run([&] { third = true; }, &strand); });
      co_sleep_ns(ClockType::kMonotonic, 20'000'000);
      EXPECT_FALSE(ran);
      EXPECT_FALSE(third);
      gate.set_value();
      group.wait_all();
      EXPECT_FALSE(second);
      EXPECT_TRUE(third) << "the one behind it has its turn";
    });
  }
}

TEST(WorkerPoolTest, AStrandMayGoAsSoonAsItsLastJobIsDone) {
  run_in_main_loop([]() coroutine_fn {
    for (int i = 0; i < 2000; ++i) {
      const auto strand = std::make_unique<WorkerStrand>();
      CoGroup group;
      for (int job = 0; job < 3; ++job) {
        group.start([&]() coroutine_fn { WorkerPool::instance().run([] {}, strand.get()); });
      }
      group.wait_all();
    }
  });
}

TEST(WorkerPoolTest, AStrandServesSeveralContexts) {
  constexpr int kThreads = 4, kJobs = 500;
  WorkerStrand strand;
  int count = 0;  // guarded by the strand
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&] {
      bool done = false;
      test::start([&]() coroutine_fn {
        for (int i = 0; i < kJobs; ++i) WorkerPool::instance().run([&] { ++count; }, &strand);
        done = true;
      });
      test::run_until([&] { return done; });
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, kThreads * kJobs);
}

TEST(WorkerPoolTest, TheBoundIsAtLeastOne) {
  const MaxThreads bound(0);
  EXPECT_EQ(WorkerPool::instance().max_threads(), 1U);
  run_in_main_loop([]() coroutine_fn { EXPECT_TRUE(co_run_on_worker([] { return true; })); });
}

TEST(WorkerPoolTest, ManyContextsShareThePool) {
  constexpr int kThreads = 4;
  constexpr int kJobs = 500;
  std::atomic<int> jobs{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      run_in_main_loop([&]() coroutine_fn {
        CoGroup group;
        const std::thread::id home = test::thread_id();
        for (int i = 0; i < kJobs; ++i) {
          group.wait_below(20);
          group.start([&]() coroutine_fn {
            co_run_on_worker([&] { ++jobs; });
            EXPECT_EQ(test::thread_id(), home);
          });
        }
        group.wait_all();
      });
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(jobs.load(), kThreads * kJobs);
}

TEST(WorkerPoolTest, AThreadMayEndRightAfterItsJob) {
  for (int i = 0; i < 200; ++i) {
    std::thread([] { run_in_main_loop([]() coroutine_fn { co_run_on_worker([] {}); }); }).join();
  }
}

#if !COIMG_TSAN  // its runtime starts no threads in forked children
TEST(WorkerPoolTest, AForkedChildHasAPoolOfItsOwn) {
  run_in_main_loop([]() coroutine_fn { co_run_on_worker([] {}); });
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    int result = 1;
    std::thread([&] { run_in_main_loop([&]() coroutine_fn { result = co_run_on_worker([] { return 0; }); }); }).join();
    _exit(result);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(WorkerPoolDeathTest, ExitWaitsForRunningJobs) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        // Not a callable: it would leak, as this coroutine never ends.
        const auto entry = [](void*) {
          Coroutine::assume_in_coroutine();
          co_run_on_worker([] {
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            static const char message[] = "the job is done\n";
            [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, message, sizeof message - 1);
          });
        };
        Coroutine::create(entry, nullptr)->enter();
        exit(7);
      },
      testing::ExitedWithCode(7), "the job is done");
}
#endif

}  // namespace
}  // namespace coimg
