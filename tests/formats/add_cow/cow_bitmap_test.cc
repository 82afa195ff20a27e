#include "formats/add_cow/cow_bitmap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#include "block/util/math.h"
#include "coroutine/co_group.h"
#include "coroutine/co_sleep.h"
#include "coroutine/main_loop.h"
#include "tests/formats/add_cow/image_fixture.h"

namespace coimg::add_cow {
namespace {

TEST(AddCowBits, AreCountedAndChangedAsOneByOne) {
  std::mt19937_64 random(test_seed());
  for (int round = 0; round < 2000; ++round) {
    const uint64_t bits = 8 * (1 + random() % 40);
    Bytes bytes(bits / 8);
    std::vector<bool> model(bits);
    const uint64_t first = random() % bits, count = random() % (bits - first + 1);
    set_bits(bytes, first, count);
    std::fill_n(model.begin() + static_cast<ptrdiff_t>(first), count, true);
    const uint64_t gap = random() % bits, gap_count = random() % (bits - gap + 1);
    clear_bits(bytes, gap, gap_count);
    std::fill_n(model.begin() + static_cast<ptrdiff_t>(gap), gap_count, false);
    for (uint64_t bit = 0; bit < bits; ++bit) ASSERT_EQ(test_bit(bytes, bit), model[bit]);

    const uint64_t part = random() % (bits + 1);
    ASSERT_EQ(count_set_bits(bytes, part),
              static_cast<uint64_t>(std::count(model.begin(), model.begin() + static_cast<ptrdiff_t>(part), true)));

    const uint64_t from = random() % bits, most = 1 + random() % (bits - from);
    uint64_t expected = 1;
    while (expected < most && model[from + expected] == model[from]) ++expected;
    ASSERT_EQ(count_equal_bits(bytes, from, most), expected) << from << " of " << bits;
  }
}

TEST(AddCowBitmap, MemoryIsWhatWasAskedFor) {
  EXPECT_EQ(BitmapMemory::of(0).blocks * BitmapMemory::of(0).block_bytes, 1024u);
  EXPECT_EQ(BitmapMemory::of(2 * kMiB).block_bytes, 65536u);
  EXPECT_EQ(BitmapMemory::of(2 * kMiB).blocks, 32u);
  EXPECT_LE(BitmapMemory::of(UINT64_MAX).blocks * uint64_t{65536}, kGiB);
}

/// A bitmap of ten blocks, two of which fit into memory.
class AddCowBitmapTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kStart = 4096, kBlockBits = 512 * 8, kClusters = kBlockBits * 10 - 3;

  void run(const std::function<void()>& test) {
    run_in_main_loop([&]() coroutine_fn {
      file_ = make_fault_node(file_disk_);
      image_ = make_fault_node(std::make_shared<MemDisk>(Bytes(4096)));
      bitmap_ = std::make_unique<CowBitmap>(*file_, *image_, HostOffset(kStart), kClusters, BitmapMemory{512, 2});
      test();
      bitmap_.reset();
      EXPECT_TRUE(image_->co_close().ok());
      EXPECT_TRUE(file_->co_close().ok());
    });
  }
  void set(uint64_t first, uint64_t count) coroutine_fn { ASSERT_TRUE(bitmap_->set(GuestCluster(first), count).ok()); }
  CowBitmap::Run run_at(uint64_t first, uint64_t most = UINT64_MAX) coroutine_fn {
    auto found = bitmap_->find_run(GuestCluster(first), most);
    EXPECT_TRUE(found.ok());
    return found.value_or(CowBitmap::Run());
  }
  bool stored(uint64_t bit) { return test_bit(std::span(file_disk_->bytes).subspan(kStart), bit); }

  std::shared_ptr<MemDisk> file_disk_ = std::make_shared<MemDisk>(Bytes(kStart + 8192));
  std::unique_ptr<BlockNode> file_, image_;
  std::unique_ptr<CowBitmap> bitmap_;
};

TEST_F(AddCowBitmapTest, RunsGoAcrossBlocks) {
  run([this]() coroutine_fn {
    set(kBlockBits - 5, kBlockBits * 3);
    EXPECT_FALSE(run_at(0).set);
    EXPECT_EQ(run_at(0).clusters, kBlockBits - 5);
    EXPECT_TRUE(run_at(kBlockBits).set);
    EXPECT_EQ(run_at(kBlockBits).clusters, kBlockBits * 3 - 5);
    EXPECT_EQ(run_at(kBlockBits, 77).clusters, 77u);
    EXPECT_EQ(run_at(kBlockBits * 4).clusters, kClusters - kBlockBits * 4);
  });
}

// The bitmap of a disk of 1 EiB in clusters of 4 KiB has 32 TiB, which nobody can read.
TEST_F(AddCowBitmapTest, HolesOfTheFileAreNotRead) {
  run([this]() coroutine_fn {
    constexpr uint64_t kManyClusters = uint64_t{1} << 48;
    CowBitmap huge(*file_, *image_, HostOffset(kStart), kManyClusters, BitmapMemory{512, 2});
    const auto run_of_huge = [&](uint64_t first) coroutine_fn {
      auto found = huge.find_run(GuestCluster(first), kManyClusters);
      EXPECT_TRUE(found.ok());
      return found.value_or(CowBitmap::Run());
    };
    EXPECT_EQ(run_of_huge(0).clusters, kManyClusters);
    EXPECT_EQ(run_of_huge(77).clusters, kManyClusters - 77);
    EXPECT_EQ(fault_driver(*file_).counters().reads, 0u);

    ASSERT_TRUE(huge.set(GuestCluster(kBlockBits * 9 + 3), 2).ok());  // in memory only, where the file has its hole
    EXPECT_EQ(run_of_huge(5).clusters, kBlockBits * 9 + 3 - 5);
    EXPECT_TRUE(run_of_huge(kBlockBits * 9 + 3).set);
    EXPECT_EQ(run_of_huge(kBlockBits * 9 + 3).clusters, 2u);
    EXPECT_EQ(run_of_huge(kBlockBits * 9 + 5).clusters, kManyClusters - kBlockBits * 9 - 5);
    EXPECT_EQ(huge.count_set().value_or(0), 2u);
    ASSERT_TRUE(huge.set(GuestCluster(7), 1).ok());
    ASSERT_TRUE(huge.store().ok());
    EXPECT_EQ(huge.count_set().value_or(0), 3u);
    EXPECT_LT(fault_driver(*file_).counters().reads, 20u);
  });
}

// The fault that the format's first implementation has: bits that are pushed out of memory overtake their data.
TEST_F(AddCowBitmapTest, NoBitIsWrittenBeforeTheImageFileIsFlushed) {
  std::mt19937_64 random(test_seed());
  run([&]() coroutine_fn {
    const Bytes data = pattern(512);
    for (int i = 0; i < 300; ++i) {
      ASSERT_TRUE(image_->co_pwrite(random() % 8 * 512, data).ok());
      set(random() % (kClusters - 3), 3);
      if (random() % 40 == 0) {
        ASSERT_TRUE(bitmap_->store().ok());
      }
    }
    // Whenever bits were written, all data written before the latest of them were set must have been flushed.
    const auto& image_log = fault_driver(*image_).log();
    uint64_t writes = 0;
    for (const LoggedIo& io : fault_driver(*file_).log()) {
      if (io.op != kOpWrite) continue;
      ++writes;
      uint64_t last_data = 0, last_flush = 0;
      for (const LoggedIo& other : image_log) {
        if (other.time > io.time) break;
        (other.op == kOpFlush ? last_flush : last_data) = other.time;
      }
      ASSERT_GT(last_flush, last_data) << "bits at " << io.offset;
    }
    EXPECT_GT(writes, 20u) << "nothing was pushed out of memory";
  });
}

TEST_F(AddCowBitmapTest, ABitThatIsSetDuringTheFlushWaitsForTheNextOne) {
  run([this]() coroutine_fn {
    set(1, 1);
    fault_driver(*image_).set_delay_ns(20'000'000);
    CoGroup group;
    group.start([this]() coroutine_fn {
      EXPECT_TRUE(image_->co_pwrite(0, Bytes(512)).ok());  // else there is nothing to flush
      EXPECT_TRUE(bitmap_->store().ok());
    });
    group.start([this]() coroutine_fn {
      co_sleep_ns(ClockType::kMonotonic, 30'000'000);
      set(2, 1);
    });
    group.wait_all();
    EXPECT_TRUE(stored(1));
    EXPECT_FALSE(stored(2));
    EXPECT_TRUE(bitmap_->dirty());
    ASSERT_TRUE(bitmap_->store().ok());
    EXPECT_TRUE(stored(2));
    EXPECT_FALSE(bitmap_->dirty());
  });
}

TEST_F(AddCowBitmapTest, WhatFailedToArriveIsStoredLater) {
  run([this]() coroutine_fn {
    ASSERT_TRUE(image_->co_pwrite(0, pattern(512)).ok());
    set(5, 1);
    set(kBlockBits + 5, 1);
    fault_driver(*image_).fail_nth_io(1, EIO, kOpFlush);
    EXPECT_EQ(bitmap_->store().error().errnum(), EIO);
    EXPECT_TRUE(fault_driver(*file_).log().empty()) << "a bit went ahead of its data";
    fault_driver(*file_).fail_nth_io(2, ENOSPC, kOpWrite);
    EXPECT_EQ(bitmap_->store().error().errnum(), ENOSPC);
    EXPECT_TRUE(bitmap_->dirty());
    EXPECT_TRUE(stored(5) && !stored(kBlockBits + 5));
    ASSERT_TRUE(bitmap_->store().ok());
    EXPECT_TRUE(stored(kBlockBits + 5));
    EXPECT_FALSE(bitmap_->dirty());
  });
}

TEST_F(AddCowBitmapTest, FailedReadsAreToldAndTriedAgain) {
  run([this]() coroutine_fn {
    file_disk_->bytes[kStart + 100] = std::byte{1};  // else it is a hole
    fault_driver(*file_).fail_nth_io(1, EIO, kOpRead);
    EXPECT_EQ(bitmap_->find_run(GuestCluster(0), 1).error().errnum(), EIO);
    EXPECT_FALSE(run_at(0).set);
  });
}

TEST_F(AddCowBitmapTest, ClearingLeavesWhatIsInFront) {
  for (const uint64_t from : {uint64_t{0}, uint64_t{1}, kBlockBits - 1, kBlockBits, kBlockBits * 3 + 77}) {
    SCOPED_TRACE(from);
    run([&]() coroutine_fn {
      set(0, kClusters);
      ASSERT_TRUE(bitmap_->clear_from(GuestCluster(from), 8192).ok());
      if (from != 0) {
        EXPECT_EQ(run_at(0).clusters, from);
        EXPECT_TRUE(run_at(0).set);
      }
      EXPECT_FALSE(run_at(from).set);
      EXPECT_EQ(run_at(from).clusters, kClusters - from);
      ASSERT_TRUE(bitmap_->store().ok());
      for (uint64_t bit = 0; bit < kClusters; ++bit) ASSERT_EQ(stored(bit), bit < from) << bit;
    });
  }
}

TEST_F(AddCowBitmapTest, ManyAtOnceGetAlongWithLittleMemory) {
  run([this]() coroutine_fn {
    fault_driver(*file_).set_delay_ns(1000);
    CoGroup group;
    for (uint64_t worker = 0; worker < 16; ++worker) {
      group.start([this, worker]() coroutine_fn {
        for (uint64_t i = 0; i < 40; ++i) {
          const uint64_t bit = (i * 1031 + worker * 257) % 2500 * 16 + worker;
          set(bit, 1);
          EXPECT_TRUE(run_at(bit, 1).set);
        }
      });
    }
    group.wait_all();
    ASSERT_TRUE(bitmap_->store().ok());
    for (uint64_t worker = 0; worker < 16; ++worker) {
      for (uint64_t i = 0; i < 40; ++i) ASSERT_TRUE(stored((i * 1031 + worker * 257) % 2500 * 16 + worker));
    }
  });
}

}  // namespace
}  // namespace coimg::add_cow
