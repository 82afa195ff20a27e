#include "block/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "tests/support/fault_driver.h"
#include "tests/support/mem_driver.h"

namespace coimg {
namespace {

using Bytes = std::vector<std::byte>;
using Difference = std::optional<uint64_t>;

/// Data in the first two MiB, zeros, and data again.
Bytes content() {
  Bytes bytes = pattern(7 * kMiB + 512);
  std::fill(bytes.begin() + 2 * kMiB, bytes.begin() + 5 * kMiB, std::byte{0});
  return bytes;
}

void close(BlockNode& node) coroutine_fn { EXPECT_TRUE(node.co_close().ok()); }

/// What is found when the target has another byte at each of `places`.
Difference verify(const std::vector<uint64_t>& places, unsigned workers = 8) {
  Difference found;
  run_in_main_loop([&]() coroutine_fn {
    Bytes copy = content();
    for (const uint64_t place : places) copy[place] ^= std::byte{1};
    copy.resize(8 * kMiB, std::byte{7});  // what is behind the source does not count
    const auto source = make_mem_node(content());
    const auto target = make_mem_node(std::make_shared<MemDisk>(copy), {.yields = true});
    auto result = co_verify({source.get()}, *target, {.workers = workers});
    EXPECT_TRUE(result.ok());
    if (result.ok()) found = *result;
    close(*source);
    close(*target);
  });
  return found;
}

TEST(VerifyTest, EqualContentPasses) { EXPECT_EQ(verify({}), std::nullopt); }

TEST(VerifyTest, TheFirstByteThatDiffersIsNamed) {
  for (const uint64_t place :
       {uint64_t{0}, kMiB - 1, kMiB, 2 * kMiB - 1, 2 * kMiB, 3 * kMiB + 77, 5 * kMiB - 1, 5 * kMiB, 7 * kMiB + 511}) {
    for (const unsigned workers : {1U, 16U}) {
      EXPECT_EQ(verify({place}, workers), place);
      EXPECT_EQ(verify({place, place / 2 + 3 * kMiB}, workers), std::min(place, place / 2 + 3 * kMiB));
    }
  }
}

TEST(VerifyTest, SeveralSourcesAreOne) {
  run_in_main_loop([&]() coroutine_fn {
    Bytes both = pattern(kMiB + 512, 1);
    const auto first = make_mem_node(both), second = make_mem_node(pattern(kMiB, 2));
    const Bytes rest = pattern(kMiB, 2);
    both.insert(both.end(), rest.begin(), rest.end());
    const auto same = make_mem_node(both);
    both[kMiB + 600] ^= std::byte{1};
    const auto other = make_mem_node(both);
    EXPECT_EQ(co_verify({first.get(), second.get()}, *same, {}).value(), std::nullopt);
    EXPECT_EQ(co_verify({first.get(), second.get()}, *other, {}).value(), Difference(kMiB + 600));
    for (const auto* node : {&first, &second, &same, &other}) close(**node);
  });
}

TEST(VerifyTest, ErrorsSayWhichSideTheyAreOn) {
  for (const bool in_target : {false, true}) {
    run_in_main_loop([&]() coroutine_fn {
      const auto source = make_fault_node(std::make_shared<MemDisk>(pattern(3 * kMiB)));
      const auto target = make_fault_node(std::make_shared<MemDisk>(pattern(3 * kMiB)));
      fault_driver(in_target ? *target : *source).fail_range(2 * kMiB + 512, 512, EIO, kOpRead);
      const auto result = co_verify({source.get()}, *target, {});
      ASSERT_FALSE(result.ok());
      EXPECT_EQ(result.error().errnum(), EIO);
      EXPECT_THAT(result.error().message(),
                  ::testing::StartsWith(in_target ? "error while reading back the target at byte 2097152: "
                                                  : "error while reading at byte 2097152: "));
      close(*source);
      close(*target);
    });
  }
}

TEST(VerifyTest, ItStopsWhenItIsAskedTo) {
  run_in_main_loop([&]() coroutine_fn {
    const auto source = make_mem_node(content()), target = make_mem_node(content());
    EXPECT_EQ(co_verify({source.get()}, *target, {.should_stop = [] { return true; }}).error().errnum(), ECANCELED);
    close(*source);
    close(*target);
  });
}

}  // namespace
}  // namespace coimg
