#include "cmd/bench_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "coroutine/main_loop.h"
#include "tests/support/let_others_run.h"
#include "tests/support/mem_driver.h"

namespace coimg {
namespace {

using ::testing::ElementsAre;

constexpr uint64_t kDiskBytes = 1 << 20;

/// Takes down what it is asked for, and how much of that at a time.
class WatchingDriver final : public MemDriver {
 public:
  using MemDriver::MemDriver;

  Result<void> preadv(uint64_t offset, const IoVector& iov) coroutine_fn override {
    return watch(offset, [&]() coroutine_fn { return MemDriver::preadv(offset, iov); });
  }
  Result<void> pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options) coroutine_fn override {
    return watch(offset, [&]() coroutine_fn { return MemDriver::pwritev(offset, iov, options); });
  }
  Result<void> flush() coroutine_fn override {
    flushed_after.push_back(offsets.size());
    most_beside_flush = std::max(most_beside_flush, in_flight);
    return MemDriver::flush();
  }

  std::vector<uint64_t> offsets;
  std::vector<size_t> flushed_after;  ///< how many requests had begun
  unsigned in_flight = 0, most_in_flight = 0, most_beside_flush = 0;
  size_t failing = SIZE_MAX;  ///< the number of the request that fails

 private:
  template <typename Request>
  Result<void> watch(uint64_t offset, const Request& request) coroutine_fn {
    const size_t number = offsets.size();
    offsets.push_back(offset);
    most_in_flight = std::max(most_in_flight, ++in_flight);
    let_others_run(3 + number % 5);
    Result<void> result = number == failing ? Result<void>(Error::from_errno(ENOSPC)) : request();
    --in_flight;
    return result;
  }
};

class BenchRunTest : public ::testing::Test {
 protected:
  BenchRunTest() {
    auto driver = std::make_unique<WatchingDriver>(disk_);
    driver_ = driver.get();
    node_.set_driver(std::move(driver));
  }

  Result<void> run(const BenchPlan& plan) {
    Result<void> result;
    run_in_main_loop([&]() coroutine_fn {
      result = run_bench(node_, plan);
      flushed_after_ = driver_->flushed_after;  // before closing flushes once more
      EXPECT_TRUE(node_.co_close().ok());
    });
    return result;
  }

  std::shared_ptr<MemDisk> disk_ = std::make_shared<MemDisk>(std::vector<std::byte>(kDiskBytes));
  BlockNode node_{"disk", {.writable = true}};
  WatchingDriver* driver_;
  std::vector<size_t> flushed_after_;
};

TEST_F(BenchRunTest, SendsAsManyRequestsAsAskedForWithTheDepthInFlight) {
  ASSERT_TRUE(run({.count = 100, .depth = 7}).ok());
  EXPECT_EQ(driver_->offsets.size(), 100u);
  EXPECT_EQ(driver_->most_in_flight, 7u);
}

TEST_F(BenchRunTest, StartsNoMoreCoroutinesThanThereAreRequests) {
  ASSERT_TRUE(run({.count = 3, .depth = 1000000}).ok());
  EXPECT_EQ(driver_->most_in_flight, 3u);
}

TEST_F(BenchRunTest, GoesOnFromTheStartOfTheDiskBehindItsEnd) {
  constexpr uint64_t kStart = kDiskBytes - 65536;
  ASSERT_TRUE(run({.count = 4, .depth = 1, .offset = kStart, .step_bytes = 3 * 65536}).ok());
  EXPECT_THAT(driver_->offsets, ElementsAre(kStart, 2 * 65536, 5 * 65536, 8 * 65536));
}

TEST_F(BenchRunTest, WritesThePattern) {
  const std::byte five{5};
  ASSERT_TRUE(run({.write = true, .count = 2, .depth = 2, .bytes = 512, .step_bytes = 1024, .pattern = five}).ok());
  EXPECT_EQ(disk_->bytes[0], five);
  EXPECT_EQ(disk_->bytes[511], five);
  EXPECT_EQ(disk_->bytes[512], std::byte{0});
  EXPECT_EQ(disk_->bytes[1024 + 511], five);
}

TEST_F(BenchRunTest, FlushesWhenAMultipleIsLeftAndNothingIsInFlight) {
  ASSERT_TRUE(run({.write = true, .count = 11, .depth = 3, .flush_interval = 4}).ok());
  EXPECT_THAT(flushed_after_, ElementsAre(3, 7, 11));
  EXPECT_EQ(driver_->most_beside_flush, 0u);
}

TEST_F(BenchRunTest, FlushesBesideOtherRequestsWithoutDraining) {
  ASSERT_TRUE(run({.write = true, .count = 40, .depth = 4, .flush_interval = 4, .drain_for_flush = false}).ok());
  EXPECT_EQ(flushed_after_.size(), 10u);
  EXPECT_GT(driver_->most_beside_flush, 0u);
}

TEST_F(BenchRunTest, SendsNothingMoreAfterAFailure) {
  driver_->failing = 10;
  const Result<void> result = run({.count = 1000, .depth = 4});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().message(), "Failed request: No space left on device");
  EXPECT_LT(driver_->offsets.size(), 20u);
  EXPECT_EQ(driver_->in_flight, 0u);
}

TEST_F(BenchRunTest, RefusesRequestsThatAreNotInsideTheDisk) {
  const Result<void> result = run({.count = 1, .offset = kDiskBytes - 4095});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().errnum(), EIO);
  EXPECT_TRUE(driver_->offsets.empty());
}

TEST_F(BenchRunTest, FailsWhenThereIsNoMemoryForTheBuffers) {
  const Result<void> result = run({.count = 65536, .depth = 65536, .bytes = uint64_t{1} << 50});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().errnum(), ENOMEM);
}

}  // namespace
}  // namespace coimg
