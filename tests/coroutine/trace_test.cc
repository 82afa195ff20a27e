#include "coroutine/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/coroutine/loop.h"

namespace coimg {
namespace {

/// The variable is read before main(), so what it does shows in a new process: the death test's.
class TraceVariable {
 public:
  explicit TraceVariable(const char* value) { ::setenv("COIMG_TRACE", value, 1); }
  ~TraceVariable() { ::unsetenv("COIMG_TRACE"); }
};

[[noreturn]] void run_one_coroutine() {
  Coroutine* co = test::start([]() coroutine_fn { Coroutine::yield(); }, "traced");
  co_wake(co);
  test::run_due();
  std::exit(0);
}

TEST(TraceDeathTest, TheLifeOfACoroutineIsTold) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const TraceVariable on("stderr");
  EXPECT_EXIT(run_one_coroutine(), testing::ExitedWithCode(0),
              "create coroutine='traced' .* by='code outside of coroutines'\n"
              ".* enter coroutine='traced' .*\n"
              ".* yield coroutine='traced' .*\n"
              ".* schedule coroutine='traced' .* by='code outside of coroutines'\n"
              ".* bottom_half name='enter scheduled coroutines' .*\n"
              ".* enter coroutine='traced' .*\n"
              ".* end coroutine='traced' ");
}

TEST(TraceDeathTest, NothingIsToldWithoutTheVariable) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(run_one_coroutine(), testing::ExitedWithCode(0), "^$");
}

TEST(TraceDeathTest, ATargetThatCannotBeOpenedIsAnError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const TraceVariable on("/nonexistent/trace");
  EXPECT_DEATH(run_one_coroutine(), "COIMG_TRACE: cannot open '/nonexistent/trace'");
}

}  // namespace
}  // namespace coimg
