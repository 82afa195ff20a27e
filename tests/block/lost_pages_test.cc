// Files that become shorter while their pages are looked at: an error for everybody who reads that way, never zeros
// that pass for content.
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>

#include "block/checksum.h"
#include "block/copy.h"
#include "block/copy_forecast.h"
#include "block/util/math.h"
#include "block/verify.h"
#include "coroutine/main_loop.h"
#include "tests/support/mem_driver.h"
#include "tests/support/vanishing_file.h"

namespace coimg {
namespace {

class LostPagesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!pages_can_be_mapped()) GTEST_SKIP() << "the file system of /tmp has no reads that do not wait";
  }

  /// `body` gets such a file, and one that holds the same and stays.
  void with_files(const std::function<void(BlockNode& vanishing, BlockNode& other)>& body) {
    run_in_main_loop([&]() coroutine_fn {
      const auto vanishing = make_vanishing_node(kBytes);
      const auto other = make_mem_node(pattern(kBytes));
      body(*vanishing, *other);
      EXPECT_TRUE(vanishing->co_close().ok());
      EXPECT_TRUE(other->co_close().ok());
    });
  }

  static constexpr uint64_t kBytes = 4 * kMiB;
};

TEST_F(LostPagesTest, ACopySaysSo) {
  for (const bool leave_equal : {false, true}) {
    with_files([&](BlockNode& vanishing, BlockNode& other) coroutine_fn {
      const auto copied = co_copy({&vanishing}, other, {.leave_equal = leave_equal});
      ASSERT_FALSE(copied.ok());
      EXPECT_EQ(copied.error().errnum(), EIO) << copied.error().message();
    });
  }
}

TEST_F(LostPagesTest, AVerificationSaysSoOfEitherSide) {
  with_files([](BlockNode& vanishing, BlockNode& other) coroutine_fn {
    const auto first = co_verify({&vanishing}, other, {});
    ASSERT_FALSE(first.ok());
    EXPECT_EQ(first.error().errnum(), EIO);
    const auto second = co_verify({&other}, vanishing, {});
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().errnum(), EIO);
    const auto zeros = make_mem_node(std::vector<std::byte>(kBytes));
    const auto third = co_verify({zeros.get()}, vanishing, {});
    ASSERT_FALSE(third.ok());
    EXPECT_EQ(third.error().errnum(), EIO);
    EXPECT_TRUE(zeros->co_close().ok());
  });
}

TEST_F(LostPagesTest, AChecksumSaysSo) {
  with_files([](BlockNode& vanishing, BlockNode&) coroutine_fn {
    const auto digest = co_checksum(vanishing, {});
    ASSERT_FALSE(digest.ok());
    EXPECT_EQ(digest.error().errnum(), EIO);
  });
}

TEST_F(LostPagesTest, AForecastSaysSo) {
  with_files([](BlockNode& vanishing, BlockNode&) coroutine_fn {
    const auto forecast =
        co_forecast_copy(vanishing, 64 * kKiB, true, [](uint64_t, uint64_t) -> Result<void> { return {}; });
    ASSERT_FALSE(forecast.ok());
    EXPECT_EQ(forecast.error().errnum(), EIO);
  });
}

}  // namespace
}  // namespace coimg
