#include "coroutine/stack.h"

#include <alloca.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>
#include <thread>
#include <vector>

#include "coroutine/compiler.h"
#include "coroutine/coroutine.h"
#include "coroutine/coroutine_private.h"
#include "coroutine/main_loop.h"
#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

/// Writes to `bytes` of stack, from the top down and to each cache line, in frames smaller than a guard.
__attribute__((noinline)) void use_stack(size_t bytes) {
  constexpr size_t kPiece = 4096;
  for (size_t used = 0; used < bytes; used += kPiece) {
    auto* piece = static_cast<volatile char*>(alloca(kPiece));  // stays until the function returns
    for (size_t i = kPiece; i > 0; i -= 64) piece[i - 1] = 1;
  }
}

/// Lets new stacks come without guards while it lives.
class WithoutGuards {
 public:
  WithoutGuards() : previous_(set_max_guarded_stacks(0)) {}
  ~WithoutGuards() { set_max_guarded_stacks(previous_); }

 private:
  size_t previous_;
};

TEST(StackTest, StacksAreReused) {
  Stack* first = acquire_stack();
  release_stack(first);
  Stack* second = acquire_stack();
  EXPECT_EQ(first, second);
  release_stack(second);
}

/// The size is chosen once a process, so each choice is seen in a new one: the death test's.
void expect_stack_kib(const char* variable, size_t kib) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  ::setenv("COIMG_STACK_KIB", variable, 1);
  EXPECT_EXIT(
      {
        bool used = false;
        test::start([&]() coroutine_fn {
          use_stack(kib * 1024 / 2);
          used = true;
        });
        std::exit(used && stack_size_bytes() == kib * 1024 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
  ::unsetenv("COIMG_STACK_KIB");
}

TEST(StackDeathTest, TheEnvironmentChoosesTheSize) {
  expect_stack_kib("512", 512);
  expect_stack_kib("2000", 2000);
  if (!COIMG_ASAN && !COIMG_TSAN) expect_stack_kib("64", 64);
  expect_stack_kib("99999999", 64 * 1024);  // the most there is
  expect_stack_kib("many", COIMG_ASAN ? 1024 : 256);
}

TEST(StackTest, MostOfAStackCanBeUsed) {
  bool survived = false;
  test::start([&]() coroutine_fn {
    use_stack(stack_size_bytes() * 3 / 4);
    survived = true;
  });
  EXPECT_TRUE(survived);
}

TEST(StackTest, HighWaterMarkShowsTheDeepestUse) {
  if (COIMG_ASAN) GTEST_SKIP() << "AddressSanitizer keeps frames elsewhere";
  size_t high_water = 0;
  test::start([&]() coroutine_fn {
    use_stack(100 * 1024);
    high_water = stack_high_water_bytes(Coroutine::self()->priv().stack);
  });
  EXPECT_GE(high_water, size_t{100} * 1024);
  EXPECT_LE(high_water, stack_size_bytes());
}

/// Waits until a sleeping loop has given the surplus of the shared pool back to the kernel.
void wait_for_trim() {
  bool over = false;
  Timer timer(AioContext::current(), ClockType::kMonotonic, [&] { over = true; });
  timer.arm_after(10'000'000'000);
  while (trim_stack_pool() >= 0 && !over) AioContext::current().poll(true);
}

TEST(StackTest, TheSurplusGoesBackToTheKernelWhenNobodyNeedsItForAWhile) {
  std::thread([] {  // with a cache of its own
    std::vector<Stack*> stacks;
    for (int i = 0; i < 5000; ++i) stacks.push_back(acquire_stack());
    EXPECT_GE(stack_counts().guarded + stack_counts().unguarded, 5000u);
    for (Stack* stack : stacks) release_stack(stack);
  })
      .join();
  EXPECT_GE(stack_counts().pooled, 4000u) << "a program that used so many will do so again";
  wait_for_trim();
  const StackCounts counts = stack_counts();
  EXPECT_LE(counts.pooled, 2048u);
  EXPECT_LT(counts.guarded + counts.unguarded, 4000u);
}

TEST(StackTest, PastTheLimitStacksComeFromSlabsAndTheSlabsGoAgain) {
  const size_t before = stack_counts().unguarded;
  std::thread([] {
    const WithoutGuards without_guards;
    std::vector<Stack*> stacks;
    std::set<Stack*> distinct;
    size_t unguarded = 0;
    for (int i = 0; i < 6000; ++i) {
      Stack* stack = acquire_stack();
      stacks.push_back(stack);
      distinct.insert(stack);
      unguarded += stack->guarded ? 0 : 1;
    }
    EXPECT_EQ(distinct.size(), stacks.size());
    EXPECT_GE(unguarded, 3000u);
    for (const Stack* stack : stacks) EXPECT_TRUE(stack_canary_intact(stack));
    for (Stack* stack : stacks) release_stack(stack);
  }).join();
  wait_for_trim();
  EXPECT_LE(stack_counts().unguarded, before + 2048);
}

TEST(StackTest, CoroutinesWorkOnUnguardedStacks) {
  std::thread([] {
    const WithoutGuards without_guards;
    std::vector<Coroutine*> sleepers;
    int sum = 0;
    for (int i = 0; i < 3000; ++i) {
      sleepers.push_back(test::start([&sum]() coroutine_fn {
        Coroutine::yield();
        ++sum;
      }));
    }
    for (Coroutine* co : sleepers) co->enter();
    EXPECT_EQ(sum, 3000);
  }).join();
}

size_t count_lines(const char* path) {
  std::ifstream file(path);
  return static_cast<size_t>(std::count(std::istreambuf_iterator<char>(file), {}, '\n'));
}

TEST(StackTest, TwoHundredThousandCoroutinesAreAliveWithinTheLimitOfMappings) {
  if (COIMG_ASAN || COIMG_TSAN) GTEST_SKIP() << "the sanitizers' own tables need far more memory a coroutine";
  constexpr size_t kCoroutines = 200'000;
  const long pages = ::sysconf(_SC_AVPHYS_PAGES);
  if (pages * ::sysconf(_SC_PAGESIZE) < 3L << 30) GTEST_SKIP() << "needs 3 GiB of memory";
  std::vector<Coroutine*> sleepers;
  sleepers.reserve(kCoroutines);
  size_t sum = 0;
  for (size_t i = 0; i < kCoroutines; ++i) {
    sleepers.push_back(test::start([&sum, i]() coroutine_fn {
      Coroutine::yield();
      sum += i;
    }));
  }
  EXPECT_LT(count_lines("/proc/self/maps"), 60'000U) << "Linux allows 65,530 by default";
  for (Coroutine* co : sleepers) co->enter();
  EXPECT_EQ(sum, kCoroutines * (kCoroutines - 1) / 2);
}

TEST(StackDeathTest, AnOverflowNamesTheCoroutine) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(test::start([]() coroutine_fn { use_stack(size_t{64} * 1024 * 1024); }, "greedy"),
               "stack overflow in coroutine 'greedy'");
}

TEST(StackDeathTest, AnOverflowOnAnotherThreadNamesTheCoroutine) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      std::thread([] { test::start([]() coroutine_fn { use_stack(size_t{64} * 1024 * 1024); }, "greedy"); }).join(),
      "stack overflow in coroutine 'greedy'");
}

TEST(StackDeathTest, AnOverflowOnAThreadThatMakesNoCoroutinesNamesTheCoroutine) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        test::LoopThread other;
        run_in_main_loop([&]() coroutine_fn {
          AioContext::reschedule_self(other.context());
          use_stack(size_t{64} * 1024 * 1024);
        });
      },
      "stack overflow in coroutine 'main'");
  EXPECT_DEATH(  // nor a context of its own
      {
        AioContext context;
        context.co_schedule(Coroutine::create([]() coroutine_fn { use_stack(size_t{64} * 1024 * 1024); }, "greedy"));
        std::thread([&] { context.poll(true); }).join();
      },
      "stack overflow in coroutine 'greedy'");
}

TEST(StackDeathTest, ARecursionWithoutEndOnAnUnguardedStackNamesTheCoroutine) {
  if (COIMG_ASAN) GTEST_SKIP() << "AddressSanitizer sees the overflow first";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        const WithoutGuards without_guards;
        std::vector<Coroutine*> several;
        for (int i = 0; i < 3; ++i) {
          several.push_back(Coroutine::create([]() coroutine_fn { use_stack(size_t{64} * 1024 * 1024); }, "greedy"));
        }
        several.back()->enter();
      },
      "stack overflow in coroutine 'greedy'");
}

TEST(StackDeathTest, AnOverflowWithoutAGuardIsFoundAtTheNextSwitch) {
  if (COIMG_ASAN) GTEST_SKIP() << "AddressSanitizer sees the overflow first";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        const WithoutGuards without_guards;
        std::vector<Coroutine*> several;
        for (int i = 0; i < 3; ++i) {
          several.push_back(Coroutine::create(
              []() coroutine_fn {
                use_stack(stack_size_bytes());
                Coroutine::yield();
              },
              "greedy"));
        }
        // The first one of a slab has a guard below it; a later one runs into its neighbour.
        several.back()->enter();
      },
      "stack overflow in coroutine 'greedy'");
}

TEST(StackDeathTest, OtherFaultsAreLeftToWhoeverHandledThemBefore) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(test::start(
                   []() coroutine_fn {
                     volatile int* nowhere = nullptr;
                     *nowhere = 1;  // NOLINT
                   },
                   "careless"),
               "");
}

}  // namespace
}  // namespace coimg
