#include "coroutine/stack.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

#include "coroutine/compiler.h"
#include "coroutine/coroutine.h"
#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

/// Uses `bytes` of stack, and more for itself. Returns something so that nothing is optimised away.
__attribute__((noinline)) int use_stack(size_t bytes) {
  volatile char frame[1024];
  for (size_t i = 0; i < sizeof(frame); i += 64) frame[i] = static_cast<char>(bytes);
  if (bytes <= sizeof(frame)) return frame[0];
  return use_stack(bytes - sizeof(frame)) + frame[64];
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

TEST(StackTest, NearlyAllOfAStackCanBeUsed) {
  int sum = 0;
  test::start([&] { sum = use_stack(stack_size_bytes() / 2); });
  SUCCEED() << sum;
}

TEST(StackTest, HighWaterMarkShowsTheDeepestUse) {
  if (COIMG_ASAN) GTEST_SKIP() << "AddressSanitizer keeps frames elsewhere";
  Stack* stack = acquire_stack();
  const size_t before = stack_high_water_bytes(stack);
  EXPECT_LE(before, stack_size_bytes());
  char* deep = stack->top() - 100 * 1024;
  *deep = 1;
  EXPECT_GE(stack_high_water_bytes(stack), 100u * 1024);
  release_stack(stack);
}

TEST(StackTest, TheSurplusGoesBackToTheKernel) {
  std::thread([] {  // with a cache of its own
    std::vector<Stack*> stacks;
    for (int i = 0; i < 5000; ++i) stacks.push_back(acquire_stack());
    EXPECT_GE(stack_counts().guarded + stack_counts().unguarded, 5000u);
    for (Stack* stack : stacks) release_stack(stack);
  })
      .join();
  const StackCounts counts = stack_counts();
  EXPECT_LE(counts.pooled, 2048u);
  EXPECT_LT(counts.guarded + counts.unguarded, 3000u);
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

TEST(StackDeathTest, AnOverflowNamesTheCoroutine) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(test::start([] { use_stack(size_t{64} * 1024 * 1024); }, "greedy"),
               "stack overflow in coroutine 'greedy'");
}

TEST(StackDeathTest, AnOverflowOnAnotherThreadNamesTheCoroutine) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(std::thread([] { test::start([] { use_stack(size_t{64} * 1024 * 1024); }, "greedy"); }).join(),
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
                   [] {
                     volatile int* nowhere = nullptr;
                     *nowhere = 1;  // NOLINT
                   },
                   "careless"),
               "");
}

}  // namespace
}  // namespace coimg
