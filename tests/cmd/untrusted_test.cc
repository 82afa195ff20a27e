#include "cmd/untrusted.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>

namespace coimg {
namespace {

rlim_t limit_of(__rlimit_resource resource) {
  struct rlimit limit{};
  return getrlimit(resource, &limit) == 0 ? limit.rlim_cur : 0;
}

/// Limits a process of its own, and ends it with 0 when they came out as expected.
[[noreturn]] void limit_and_exit(CommandWork work, rlim_t cpu_seconds, rlim_t file_bytes) {
  const rlim_t file_bytes_before = limit_of(RLIMIT_FSIZE);
  const rlim_t address_space_before = limit_of(RLIMIT_AS);
  const ResourceLimits limits = limits_for_untrusted(work);
  const bool limited = limit_resources(limits).ok();
  const bool right = limit_of(RLIMIT_CPU) == cpu_seconds && limit_of(RLIMIT_CORE) == 0 &&
                     limit_of(RLIMIT_FSIZE) == (file_bytes != 0 ? file_bytes : file_bytes_before) &&
                     limit_of(RLIMIT_AS) == std::min(limits.address_space_bytes, address_space_before);
  std::_Exit(limited && right ? 0 : 1);
}

TEST(UntrustedDeathTest, LimitsAreThoseOfTheManual) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(limit_and_exit(CommandWork::kLook, 10, 64 << 20), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(limit_and_exit(CommandWork::kRead, 600, 64 << 20), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(limit_and_exit(CommandWork::kChange, 3600, 0), ::testing::ExitedWithCode(0), "");
}

TEST(UntrustedDeathTest, LowerLimitsStay) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto limit_twice = [] {
    const bool limited =
        limit_resources({RLIM_INFINITY, 5, 0}).ok() && limit_resources(limits_for_untrusted(CommandWork::kRead)).ok();
    std::_Exit(limited && limit_of(RLIMIT_CPU) == 5 ? 0 : 1);
  };
  EXPECT_EXIT(limit_twice(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace coimg
