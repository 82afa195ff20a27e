// Tests block/node_io.cc and block/node.cc: requests of any shape against drivers with all kinds of limits.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <tuple>
#include <vector>

#include "block/node.h"
#include "block/util/math.h"
#include "coroutine/aio_context.h"
#include "coroutine/co_group.h"
#include "coroutine/main_loop.h"
#include "formats/raw.h"
#include "tests/support/fault_driver.h"
#include "tests/support/let_others_run.h"
#include "tests/support/mem_driver.h"

namespace coimg {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<BlockNode> make_raw_node(std::unique_ptr<BlockNode> file, OpenFlags flags = {.writable = true})
    coroutine_fn {
  static const auto raw = make_raw_driver_type();
  auto node = open_format(*raw, std::move(file), flags);
  EXPECT_TRUE(node.ok());
  return *std::move(node);
}

void close(BlockNode& node) coroutine_fn {
  auto closed = node.co_close();
  EXPECT_TRUE(closed.ok()) << closed.error().message();
}

// --- random requests against a model -------------------------------------------------------------------------------

/// request alignment, memory alignment, whether the driver can write zeroes, largest transfer
using Shape = std::tuple<uint32_t, uint32_t, bool, uint64_t>;
class NodeModelTest : public ::testing::TestWithParam<Shape> {
 protected:
  MemOptions options() const {
    const auto& [request_alignment, memory_alignment, zeroes, max_transfer] = GetParam();
    MemOptions result{.supports_zeroes = zeroes, .yields = true};
    result.limits.request_alignment = request_alignment;
    result.limits.memory_alignment = memory_alignment;
    result.limits.max_transfer = std::max<uint64_t>(max_transfer, request_alignment);
    result.limits.zero_alignment = 4096;
    return result;
  }
};

/// An I/O vector over `memory`, cut at random places.
IoVector scattered(std::span<std::byte> memory, std::mt19937_64& random) {
  IoVector result;
  while (!memory.empty()) {
    const size_t piece = std::min<size_t>(memory.size(), 1 + random() % 5000);
    result.add(memory.first(piece));
    memory = memory.subspan(piece);
  }
  return result;
}

/// One random request inside [start, end) of the node, checked against and applied to the model.
void random_request(BlockNode& node, std::vector<std::byte>& model, uint64_t start, uint64_t end,
                    std::mt19937_64& random) coroutine_fn {
  const uint64_t offset = start + random() % (end - start);
  const uint64_t bytes = 1 + random() % std::min<uint64_t>(end - offset, 20000);
  const auto expected = std::span(model).subspan(offset, bytes);
  Result<void> result;
  switch (random() % 4) {
    case 0: {
      std::vector<std::byte> memory(bytes, std::byte{0xee});
      result = node.co_preadv(offset, scattered(memory, random));
      EXPECT_TRUE(std::ranges::equal(memory, expected)) << offset << " + " << bytes;
      break;
    }
    case 1:
      result = node.co_pwrite_zeroes(offset, bytes, {.may_unmap = random() % 2 == 0});
      std::ranges::fill(expected, std::byte{0});
      break;
    default: {
      auto memory = pattern(bytes, random());
      result = node.co_pwritev(offset, scattered(memory, random));
      std::ranges::copy(memory, expected.begin());
      break;
    }
  }
  EXPECT_TRUE(result.ok()) << result.error().message();
}

TEST_P(NodeModelTest, RandomRequestsReadBackWhatTheModelSays) {
  run_in_main_loop([&]() coroutine_fn {
    constexpr uint64_t kLength = 100'000;  // no multiple of anything
    auto model = pattern(kLength);
    auto node = make_raw_node(make_mem_node(std::make_shared<MemDisk>(model), options()));
    model.resize(node->length());  // what is missing to a sector reads as zeros
    std::mt19937_64 random(1);
    const uint64_t length = node->length();
    for (int i = 0; i < 400 && !HasFailure(); ++i) random_request(*node, model, 0, node->length(), random);
    EXPECT_EQ(node->length(), length);
    EXPECT_TRUE(read_all(*node) == model);
    close(*node);
  });
}

// Each coroutine has a stretch of its own, but neighbours share blocks: a read-modify-write that is not serialised
// brings back old bytes of the neighbour.
TEST_P(NodeModelTest, NeighboursInOneBlockDoNotLoseEachOthersWrites) {
  run_in_main_loop([&]() coroutine_fn {
    constexpr uint64_t kStretch = 1237;
    constexpr unsigned kWorkers = 12;
    auto model = pattern(kStretch * kWorkers);
    auto node = make_raw_node(make_mem_node(std::make_shared<MemDisk>(model), options()));
    CoGroup group;
    for (unsigned i = 0; i < kWorkers; ++i) {
      group.start([&, i]() coroutine_fn {
        std::mt19937_64 random(i);
        for (int k = 0; k < 60 && !HasFailure(); ++k) {
          random_request(*node, model, i * kStretch, (i + 1) * kStretch, random);
        }
      });
    }
    group.wait_all();
    auto content = read_all(*node);
    content.resize(model.size());
    EXPECT_TRUE(content == model);
    close(*node);
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, NodeModelTest,
                         ::testing::Values(Shape{1, 1, true, uint64_t{1} << 30}, Shape{1, 1, false, 1000},
                                           Shape{512, 1, true, uint64_t{1} << 30}, Shape{512, 512, false, 2048},
                                           Shape{4096, 1, false, uint64_t{1} << 30}, Shape{4096, 4096, true, 10000},
                                           Shape{65536, 512, true, uint64_t{1} << 30}));

// --- the shape of what reaches the driver --------------------------------------------------------------------------

TEST(NodeIo, AnAlignedRequestIsOneCallOfTheDriver) {
  run_in_main_loop([&]() coroutine_fn {
    MemOptions options;
    options.limits.request_alignment = 512;
    auto node = make_mem_node(std::make_shared<MemDisk>(pattern(8192)), options);
    std::vector<std::byte> memory(1024);
    EXPECT_TRUE(node->co_pread(512, memory).ok());
    EXPECT_TRUE(node->co_pwrite(512, memory).ok());
    EXPECT_EQ(mem_driver(*node).counters().reads, 1u);
    EXPECT_EQ(mem_driver(*node).counters().writes, 1u);
    close(*node);
  });
}

TEST(NodeIo, AnUnalignedWriteReadsOnlyTheBlocksAtItsEnds) {
  run_in_main_loop([&]() coroutine_fn {
    MemOptions options;
    options.limits.request_alignment = 512;
    auto node = make_mem_node(std::make_shared<MemDisk>(pattern(8192)), options);
    MemDriver& driver = mem_driver(*node);
    const auto data = pattern(4096, 2);
    struct Case {
      uint64_t offset, bytes, blocks_read;
    };
    for (const Case& c : {Case{10, 20, 1}, Case{10, 502, 1}, Case{512, 10, 1}, Case{10, 1000, 2}, Case{512, 1000, 1},
                          Case{500, 4000, 2}}) {
      SCOPED_TRACE(fmt::format("{} + {}", c.offset, c.bytes));
      driver.reset_counters();
      EXPECT_TRUE(node->co_pwrite(c.offset, std::span(data).first(c.bytes)).ok());
      EXPECT_EQ(driver.counters().reads, c.blocks_read);
      EXPECT_EQ(driver.counters().bytes_read, c.blocks_read * 512);
      EXPECT_EQ(driver.counters().writes, 1u);
    }
    close(*node);
  });
}

TEST(NodeIo, AFileReadsAsZerosBeyondItsEndAndGrowsByWriting) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = make_mem_node(pattern(100));
    std::vector<std::byte> memory(1000, std::byte{1});
    EXPECT_TRUE(node->co_pread(5000, memory).ok());
    EXPECT_TRUE(is_zero(memory));
    EXPECT_EQ(mem_driver(*node).counters().reads, 0u);
    EXPECT_TRUE(node->co_pwrite(2000, pattern(10)).ok());
    EXPECT_EQ(node->exact_length(), 2010u);
    EXPECT_EQ(node->length(), 2048u);
    close(*node);
  });
}

TEST(NodeIo, AFileGrowsNoFurtherThanItIsWrittenWhateverTheAlignment) {
  run_in_main_loop([&]() coroutine_fn {
    MemOptions options{.yields = true};
    options.limits.request_alignment = 4096;
    auto node = make_mem_node(std::make_shared<MemDisk>(pattern(5000)), options);
    EXPECT_TRUE(node->co_pwrite(4990, pattern(5)).ok());
    EXPECT_EQ(node->exact_length(), 5000u);
    EXPECT_TRUE(node->co_pwrite(4990, pattern(20)).ok());
    EXPECT_EQ(node->exact_length(), 5010u);

    CoGroup group;
    for (uint64_t i : {3, 1, 0, 4, 2}) {
      group.start([&, i]() coroutine_fn { EXPECT_TRUE(node->co_pwrite(6000 + i * 3000, pattern(3000, i)).ok()); });
    }
    group.wait_all();
    EXPECT_EQ(node->exact_length(), 21000u);
    for (uint64_t i = 0; i < 5; ++i) {
      std::vector<std::byte> memory(3000);
      EXPECT_TRUE(node->co_pread(6000 + i * 3000, memory).ok());
      EXPECT_EQ(memory, pattern(3000, i)) << i;
    }
    close(*node);
  });
}

TEST(NodeIo, AFormatEndsWhereItsLengthRoundedUpToASectorDoes) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = make_raw_node(make_mem_node(pattern(1000)));
    EXPECT_EQ(node->length(), 1024u);
    std::vector<std::byte> memory(24, std::byte{1});
    EXPECT_TRUE(node->co_pread(1000, memory).ok());
    EXPECT_TRUE(is_zero(memory));
    EXPECT_TRUE(node->co_pwrite(1020, pattern(4)).ok());
    EXPECT_EQ(node->exact_length(), 1024u);
    auto passed = node->co_pwrite(1020, pattern(5));
    ASSERT_FALSE(passed.ok());
    EXPECT_EQ(passed.error().errnum(), EINVAL);
    EXPECT_THAT(passed.error().message(), HasSubstr("0x3fc"));
    EXPECT_EQ(node->co_pread(UINT64_MAX, memory).error().errnum(), EINVAL);
    EXPECT_EQ(node->co_pwrite_zeroes(0, UINT64_MAX).error().errnum(), EINVAL);
    EXPECT_EQ(node->co_preadv(1025, {}).error().errnum(), EINVAL);
    EXPECT_TRUE(node->co_preadv(1024, {}).ok());
    close(*node);
  });
}

TEST(NodeIo, AReadOnlyNodeRefusesAllChanges) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = make_mem_node(std::make_shared<MemDisk>(pattern(4096)), {}, {.writable = false});
    std::vector<std::byte> memory(512);
    for (const auto& result : {node->co_pwrite(0, memory), node->co_pwrite_zeroes(0, 512), node->co_pdiscard(0, 512),
                               node->co_pwrite_compressed(0, IoVector(std::span(memory))), node->co_truncate(0)}) {
      ASSERT_FALSE(result.ok());
      EXPECT_EQ(result.error().errnum(), EACCES);
      EXPECT_EQ(result.error().message(), "image is read-only");
    }
    EXPECT_EQ(read_all(*node), pattern(4096));
    close(*node);
  });
}

// --- zeroes and discards -------------------------------------------------------------------------------------------

TEST(NodeIo, ZeroesGoToTheDriverInWholeClustersAndOnceForTheEnds) {
  run_in_main_loop([&]() coroutine_fn {
    MemOptions options;
    options.limits.zero_alignment = 4096;
    auto disk = std::make_shared<MemDisk>(pattern(64 * 1024));
    auto node = make_fault_node(disk, options);
    EXPECT_TRUE(node->co_pwrite_zeroes(1000, 20000).ok());
    const auto& log = fault_driver(*node).log();
    ASSERT_EQ(log.size(), 3u);
    EXPECT_EQ(std::tuple(log[0].offset, log[0].bytes), std::tuple(1000u, 3096u));
    EXPECT_EQ(std::tuple(log[1].offset, log[1].bytes), std::tuple(4096u, 16384u));
    EXPECT_EQ(std::tuple(log[2].offset, log[2].bytes), std::tuple(20480u, 520u));
    close(*node);
  });
}

TEST(NodeIo, WritesOfZerosAreDetectedWhereThatIsAskedFor) {
  run_in_main_loop([&]() coroutine_fn {
    const auto disk = std::make_shared<MemDisk>(pattern(8192));
    auto expected = disk->bytes;
    std::fill_n(expected.begin() + 100, 5000, std::byte{0});
    expected[7000] = std::byte{0};
    expected[7001] = std::byte{1};
    const std::byte mixed[] = {std::byte{0}, std::byte{1}};
    for (const DetectZeroes mode : {DetectZeroes::kOff, DetectZeroes::kOn, DetectZeroes::kUnmap}) {
      *disk = MemDisk(pattern(8192));
      auto node = make_mem_node(disk, {}, {.writable = true, .detect_zeroes = mode});
      EXPECT_TRUE(node->co_pwrite(100, std::vector<std::byte>(5000)).ok());
      EXPECT_TRUE(node->co_pwrite(7000, mixed).ok());
      const IoCounters& counters = mem_driver(*node).counters();
      EXPECT_EQ(counters.zeroes, mode == DetectZeroes::kOff ? 0u : 1u);
      EXPECT_EQ(counters.writes, mode == DetectZeroes::kOff ? 2u : 1u);
      EXPECT_EQ(read_all(*node), expected);
      close(*node);
    }
  });
}

TEST(NodeIo, ZeroesFallBackToWritesOfBoundedSize) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = make_mem_node(std::make_shared<MemDisk>(pattern(5 * kMiB)), {.supports_zeroes = false});
    EXPECT_TRUE(node->co_pwrite_zeroes(100, 3 * kMiB).ok());
    EXPECT_EQ(mem_driver(*node).counters().writes, 4u);
    auto expected = pattern(5 * kMiB);
    std::fill_n(expected.begin() + 100, 3 * kMiB, std::byte{0});
    EXPECT_EQ(read_all(*node), expected);
    close(*node);
  });
}

TEST(NodeIo, WithoutFallbackZeroesAreRefusedAndNothingIsWritten) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = make_mem_node(std::make_shared<MemDisk>(pattern(8192)), {.supports_zeroes = false});
    auto result = node->co_pwrite_zeroes(0, 4096, {.no_fallback = true});
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().errnum(), ENOTSUP);
    EXPECT_EQ(mem_driver(*node).counters().writes, 0u);
    EXPECT_EQ(read_all(*node), pattern(8192));
    close(*node);
  });
}

TEST(NodeIo, DiscardsAreClippedToWhatTheDriverCanDo) {
  run_in_main_loop([&]() coroutine_fn {
    MemOptions options;
    options.limits.discard_alignment = 4096;
    auto node = make_fault_node(std::make_shared<MemDisk>(pattern(10240)), options);
    const auto& log = fault_driver(*node).log();
    EXPECT_TRUE(node->co_pdiscard(1, 4096).ok());      // no whole block
    EXPECT_TRUE(node->co_pdiscard(20000, 4096).ok());  // behind the end
    EXPECT_TRUE(log.empty());
    EXPECT_TRUE(node->co_pdiscard(1, 9000).ok());
    ASSERT_EQ(log.size(), 1u);
    EXPECT_EQ(std::tuple(log[0].offset, log[0].bytes), std::tuple(4096u, 4096u));
    EXPECT_TRUE(node->co_pdiscard(8000, UINT64_MAX).ok());  // up to the end of the image, wherever that is
    ASSERT_EQ(log.size(), 2u);
    EXPECT_EQ(std::tuple(log[1].offset, log[1].bytes), std::tuple(8192u, 2048u));
    close(*node);
  });
}

// --- flush ---------------------------------------------------------------------------------------------------------

TEST(NodeIo, FlushesOnlyWhatWasWrittenSinceTheLastFlush) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = make_raw_node(make_mem_node(pattern(4096)));
    const auto& flushes = mem_driver(*node->file()).counters().flushes;
    EXPECT_TRUE(node->co_flush().ok());
    EXPECT_EQ(flushes, 0u);
    EXPECT_TRUE(node->co_pwrite(0, pattern(1)).ok());
    EXPECT_TRUE(node->co_flush().ok());
    EXPECT_TRUE(node->co_flush().ok());
    EXPECT_EQ(flushes, 1u);
    EXPECT_TRUE(node->co_pwrite_zeroes(0, 1).ok());
    close(*node);  // flushes what is left
    EXPECT_EQ(flushes, 2u);
  });
}

TEST(NodeIo, AFailedFlushIsRepeated) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = make_fault_node(pattern(4096));
    FaultDriver& driver = fault_driver(*node);
    EXPECT_TRUE(node->co_pwrite(0, pattern(1)).ok());
    driver.fail_nth_io(1, EIO, kOpFlush);
    EXPECT_EQ(node->co_flush().error().errnum(), EIO);
    EXPECT_TRUE(node->co_flush().ok());
    EXPECT_EQ(driver.counters().flushes, 1u);
    close(*node);
  });
}

TEST(NodeIo, AWriteDuringAFlushNeedsAnotherFlush) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = make_mem_node(std::make_shared<MemDisk>(pattern(4096)), {.yields = true});
    EXPECT_TRUE(node->co_pwrite(0, pattern(1)).ok());
    CoGroup group;
    group.start([&]() coroutine_fn { EXPECT_TRUE(node->co_flush().ok()); });
    group.start([&]() coroutine_fn { EXPECT_TRUE(node->co_pwrite(1, pattern(1)).ok()); });
    group.wait_all();
    EXPECT_TRUE(node->co_flush().ok());
    EXPECT_EQ(mem_driver(*node).counters().flushes, 2u);
    close(*node);
  });
}

TEST(NodeIo, CacheModesDecideAboutFlushes) {
  run_in_main_loop([&]() coroutine_fn {
    auto unsafe = make_mem_node(std::make_shared<MemDisk>(), {}, {.writable = true, .no_flush = true});
    EXPECT_TRUE(unsafe->co_pwrite(0, pattern(1), {.force_unit_access = true}).ok());
    EXPECT_TRUE(unsafe->co_flush().ok());
    close(*unsafe);
    EXPECT_EQ(mem_driver(*unsafe).counters().flushes, 0u);

    auto through = make_mem_node(std::make_shared<MemDisk>(), {}, {.writable = true, .write_through = true});
    EXPECT_TRUE(through->co_pwrite(0, pattern(1)).ok());
    EXPECT_TRUE(through->co_pwrite_zeroes(0, 1).ok());
    EXPECT_EQ(mem_driver(*through).counters().flushes, 2u);
    close(*through);

    auto back = make_mem_node(std::make_shared<MemDisk>(), {});
    EXPECT_TRUE(back->co_pwrite(0, pattern(1)).ok());
    EXPECT_EQ(mem_driver(*back).counters().flushes, 0u);
    EXPECT_TRUE(back->co_pwrite(0, pattern(1), {.force_unit_access = true}).ok());
    EXPECT_EQ(mem_driver(*back).counters().flushes, 1u);
    close(*back);
  });
}

// --- failures ------------------------------------------------------------------------------------------------------

// Whichever I/O of an unaligned, split write fails, the bytes around the range stay what they are.
TEST(NodeIo, AFailedWriteLeavesTheNeighboursAlone) {
  run_in_main_loop([&]() coroutine_fn {
    const auto before = pattern(16384);
    const auto data = pattern(5000, 2);
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(fmt::format("I/O number {} fails", nth));
      MemOptions options;
      options.limits.request_alignment = 512;
      options.limits.max_transfer = 2048;
      auto disk = std::make_shared<MemDisk>(before);
      auto node = make_fault_node(disk, options);
      fault_driver(*node).fail_nth_io(nth, EIO);
      auto written = node->co_pwrite(700, data);
      const bool fired = fault_driver(*node).fired();
      fault_driver(*node).heal();
      EXPECT_EQ(written.ok(), !fired);
      EXPECT_TRUE(std::equal(before.begin(), before.begin() + 700, disk->bytes.begin()));
      EXPECT_TRUE(std::equal(before.begin() + 5700, before.end(), disk->bytes.begin() + 5700));
      close(*node);
      if (fired) continue;
      EXPECT_TRUE(std::equal(data.begin(), data.end(), disk->bytes.begin() + 700));
      EXPECT_GT(nth, 4u) << "two reads and several writes were expected";
      return;
    }
  });
}

TEST(NodeIo, CloseReportsTheFirstErrorAndClosesEverything) {
  run_in_main_loop([&]() coroutine_fn {
    auto file = make_fault_node(pattern(4096));
    fault_driver(*file).fail_from_nth_io(1, ENOSPC, kOpFlush);
    auto node = make_raw_node(std::move(file));
    EXPECT_TRUE(node->co_pwrite(0, pattern(1)).ok());
    auto closed = node->co_close();
    ASSERT_FALSE(closed.ok());
    EXPECT_EQ(closed.error().errnum(), ENOSPC);
    EXPECT_THAT(closed.error().message(), HasSubstr("fault: "));
  });  // the destructors assert that all was closed
}

// --- length, rate, format protection -------------------------------------------------------------------------------

TEST(NodeIo, TruncateWaitsForWritesAtTheEnd) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = make_mem_node(std::make_shared<MemDisk>(pattern(8192)), {.yields = true});
    CoGroup group;
    group.start([&]() coroutine_fn { EXPECT_TRUE(node->co_pwrite(4096, pattern(4096, 2)).ok()); });
    group.start([&]() coroutine_fn { EXPECT_TRUE(node->co_truncate(4096).ok()); });
    group.wait_all();
    EXPECT_EQ(node->exact_length(), 4096u);
    EXPECT_TRUE(node->co_truncate(8192).ok());
    auto expected = pattern(8192);
    std::fill(expected.begin() + 4096, expected.end(), std::byte{0});
    EXPECT_EQ(read_all(*node), expected);
    EXPECT_EQ(node->co_truncate(UINT64_MAX).error().errnum(), EFBIG);
    close(*node);
  });
}

TEST(NodeIo, TheRateLimitHoldsUpWritesButNotReads) {
  run_in_main_loop([&]() coroutine_fn {
    constexpr int64_t kMs = 1'000'000;
    auto node = make_mem_node(pattern(4096));
    const auto data = pattern(kMiB / 2);
    const int64_t start = clock_now_ns(ClockType::kMonotonic);
    node->set_rate_limit(10 * kMiB);
    EXPECT_TRUE(node->co_pwrite(0, data).ok());
    EXPECT_TRUE(node->co_pwrite(0, data).ok());
    const int64_t written = clock_now_ns(ClockType::kMonotonic);
    EXPECT_GE(written - start, 50 * kMs);
    node->set_rate_limit(0);
    EXPECT_TRUE(node->co_pwrite(0, data).ok());
    EXPECT_LT(clock_now_ns(ClockType::kMonotonic) - written, 2000 * kMs);
    close(*node);
  });
}

class FormatProtectionTest : public ::testing::Test {
 protected:
  FormatProtectionTest() { registry_.add(make_raw_driver_type()); }

  /// A raw image of two sectors that was probed.
  std::unique_ptr<BlockNode> open_probed() coroutine_fn {
    auto node = open_format(*registry_.find("raw"), make_mem_node(std::vector<std::byte>(1024)), {.writable = true});
    EXPECT_TRUE(node.ok());
    (*node)->protect_from_format_change(registry_);
    return *std::move(node);
  }
  static std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

  DriverRegistry registry_;
};

TEST_F(FormatProtectionTest, AProbedRawImageCannotBecomeAnotherFormat) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = open_probed();
    auto refused = node->co_pwrite(0, bytes("KDMV"));
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().errnum(), EPERM);
    EXPECT_TRUE(is_zero(read_all(*node))) << "the refused write must not have happened";
    EXPECT_TRUE(node->co_pwrite(0, bytes("KDM")).ok());
    EXPECT_FALSE(node->co_pwrite(3, bytes("V")).ok()) << "nor in two steps";
    EXPECT_TRUE(node->co_pwrite(512, bytes("KDMV")).ok()) << "the second sector is the guest's own";
    close(*node);
  });
}

TEST_F(FormatProtectionTest, ZerosCanCompleteAMagicToo) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = open_probed();
    EXPECT_TRUE(node->co_pwrite(0, bytes("QED!")).ok());
    EXPECT_EQ(node->co_pwrite_zeroes(3, 1).error().errnum(), EPERM);
    EXPECT_TRUE(node->co_pwrite_zeroes(0, 600).ok());
    close(*node);
  });
}

TEST_F(FormatProtectionTest, ConcurrentHalvesOfAMagicDoNotSlipThrough) {
  run_in_main_loop([&]() coroutine_fn {
    auto disk = std::make_shared<MemDisk>(std::vector<std::byte>(1024));
    auto node = open_format(*registry_.find("raw"), make_mem_node(disk, {.yields = true}), {.writable = true});
    (*node)->protect_from_format_change(registry_);
    unsigned refused = 0;
    CoGroup group;
    group.start([&]() coroutine_fn { refused += !(*node)->co_pwrite(0, bytes("KD")).ok(); });
    group.start([&]() coroutine_fn { refused += !(*node)->co_pwrite(2, bytes("MV")).ok(); });
    group.wait_all();
    EXPECT_EQ(refused, 1u);
    close(**node);
  });
}

}  // namespace
}  // namespace coimg
