#include "formats/qcow2/cluster_counts.h"

#include <gtest/gtest.h>

#include <malloc.h>

#include <algorithm>
#include <random>
#include <vector>

#include "formats/qcow2/format.h"
#include "formats/qcow2/repair.h"

namespace coimg::qcow2 {
namespace {

TEST(ClusterCounts, CountsBeyondTheNarrowRangeKeepTheirMarksAndNeighbours) {
  ClusterCounts counts(20'000, 65535);
  counts.add(HostCluster(7), 1, ClusterCounts::kSeenCopied);
  for (uint64_t i = 1; i <= 20'000; ++i) {
    EXPECT_EQ(counts.add(HostCluster(8), 1, 0), 0u);
    EXPECT_EQ(counts.get(HostCluster(8)), i);
  }
  EXPECT_EQ(counts.add(HostCluster(8), 30'000, ClusterCounts::kSeenUncopied), 0u);
  EXPECT_EQ(counts.get(HostCluster(8)), 50'000u);
  EXPECT_EQ(counts.marks(HostCluster(8)), ClusterCounts::kSeenUncopied);
  EXPECT_EQ(counts.get(HostCluster(7)), 1u);
  EXPECT_EQ(counts.marks(HostCluster(7)), ClusterCounts::kSeenCopied);
  counts.set(HostCluster(8), 3);
  EXPECT_EQ(counts.get(HostCluster(8)), 3u);
  EXPECT_EQ(counts.marks(HostCluster(8)), ClusterCounts::kSeenUncopied);
}

TEST(ClusterCounts, KeepsEachValueAroundTheWidths) {
  ClusterCounts counts(300, UINT64_MAX);
  counts.add(HostCluster(255), 1, ClusterCounts::kSeenCopied);
  for (const uint64_t value : {UINT64_MAX, uint64_t{65536}, uint64_t{65535}, uint64_t{65534}, uint64_t{64},
                               uint64_t{63}, uint64_t{62}, uint64_t{0}}) {
    counts.set(HostCluster(255), value);
    EXPECT_EQ(counts.get(HostCluster(255)), value);
    EXPECT_EQ(counts.marks(HostCluster(255)), ClusterCounts::kSeenCopied);
    EXPECT_EQ(counts.get(HostCluster(254)), 0u);
  }
}

TEST(ClusterCounts, WhatDoesNotFitIsReturnedForEachWidth) {
  for (uint32_t order = 0; order <= 5; ++order) {
    const uint64_t max = Geometry(16, order).refcount_max();
    ClusterCounts counts(10, max);
    EXPECT_EQ(counts.add(HostCluster(3), max - 1, 0), 0u);
    EXPECT_EQ(counts.add(HostCluster(3), 1, 0), 0u) << order;
    EXPECT_EQ(counts.add(HostCluster(3), 1, 0), 1u) << order;
    EXPECT_EQ(counts.add(HostCluster(3), 5, 0), 5u) << order;
    EXPECT_EQ(counts.get(HostCluster(3)), max);
  }
}

TEST(ClusterCounts, ARowIsCountedLikeItsClusters) {
  constexpr uint64_t kLimit = 3 * ClusterCounts::kPieceClusters;
  for (const uint64_t max : {uint64_t{1}, uint64_t{3}, uint64_t{65535}}) {
    ClusterCounts rows(kLimit, max), single(kLimit, max);
    for (uint64_t first = 0; first < kLimit; first += 7) {
      const uint64_t count = std::min(first * 5 % 300 + 1, kLimit - first);
      const uint8_t marks = first % 2 == 0 ? ClusterCounts::kSeenCopied : ClusterCounts::kSeenUncopied;
      const uint64_t times = first % 3 + 1;
      for (uint64_t done = 0; done < count;) {
        done += rows.add_row(HostCluster(first + done), count - done, times, marks);
        if (done < count) rows.add(HostCluster(first + done++), times, marks);
      }
      for (uint64_t i = 0; i < count; ++i) single.add(HostCluster(first + i), times, marks);
    }
    for (uint64_t i = 0; i < kLimit; ++i) {
      ASSERT_EQ(rows.get(HostCluster(i)), single.get(HostCluster(i))) << i;
      ASSERT_EQ(rows.marks(HostCluster(i)), single.marks(HostCluster(i))) << i;
    }
  }
}

TEST(ClusterCounts, ARowStopsWhereACounterIsFull) {
  ClusterCounts counts(1000, 1);
  counts.add(HostCluster(700), 1, 0);
  const uint64_t done = counts.add_row(HostCluster(0), 1000, 1, 0);
  EXPECT_LE(done, 700u);
  EXPECT_EQ(counts.get(HostCluster(700)), 1u);
  EXPECT_FALSE(counts.any(HostCluster(done), HostCluster(700)));
}

TEST(ClusterCounts, PiecesThatWereNeverCountedInAreFree) {
  ClusterCounts counts(5 * ClusterCounts::kPieceClusters, 65535);
  const HostCluster far(3 * ClusterCounts::kPieceClusters + 5);
  counts.add(far, 1, 0);
  EXPECT_TRUE(counts.untouched(HostCluster(0), HostCluster(3 * ClusterCounts::kPieceClusters)));
  EXPECT_FALSE(counts.untouched(HostCluster(0), HostCluster(3 * ClusterCounts::kPieceClusters + 1)));
  EXPECT_FALSE(counts.any(HostCluster(0), far));
  EXPECT_TRUE(counts.any(HostCluster(0), far + 1));
  EXPECT_EQ(counts.find_free(far), far + 1);
}

/// Two counters are easily mixed up where a piece changes its form: each operation on a plain array as well.
TEST(ClusterCounts, IsAnArrayWhateverTheFormOfItsPieces) {
  constexpr uint64_t kLimit = 3 * ClusterCounts::kPieceClusters + 100;
  struct Counter {
    uint64_t count = 0;
    uint8_t marks = 0;
  };
  for (const unsigned different : {1u, 2u, 4u, 9u}) {  // marks and counts: what fits into which form
    std::vector<Counter> model(kLimit);
    ClusterCounts counts(kLimit, 70'000);
    std::mt19937_64 random(different);
    const auto below = [&](uint64_t end) { return random() % end; };
    for (int step = 0; step < 3000; ++step) {
      const uint64_t first = below(kLimit);
      const uint64_t longest = step % 3 == 0 ? kLimit : 70;
      const uint64_t count = std::min(below(longest) + 1, kLimit - first);
      const auto marks = static_cast<uint8_t>(below(different) % 4 << 6);
      if (step % 5 == 0) {  // back to few values, which packed pieces get smaller by
        for (uint64_t i = 0; i < count; ++i) {
          counts.set(HostCluster(first + i), step % different);
          model[first + i].count = step % different;
        }
      } else if (step % 50 == 1) {
        const uint64_t times = below(different * 20'000);
        const uint64_t fitting = std::min(times, 70'000 - model[first].count);
        EXPECT_EQ(counts.add(HostCluster(first), times, marks), times - fitting);
        model[first].count += fitting;
        model[first].marks |= marks;
      } else {
        const uint64_t times = step % 7 == 0 ? 40 : 1;
        for (uint64_t done = 0; done < count;) {
          done += counts.add_row(HostCluster(first + done), count - done, times, marks);
          if (done < count) counts.add(HostCluster(first + done++), times, marks);
        }
        for (uint64_t i = 0; i < count; ++i) {
          model[first + i].count = std::min<uint64_t>(model[first + i].count + times, 70'000);
          model[first + i].marks |= marks;
        }
      }
      if (step % 100 != 0) continue;
      for (uint64_t i = 0; i < kLimit; ++i) {
        ASSERT_EQ(counts.get(HostCluster(i)), model[i].count) << "cluster " << i << ", step " << step;
        ASSERT_EQ(counts.marks(HostCluster(i)), model[i].marks) << "cluster " << i << ", step " << step;
      }
      const auto used = [](const Counter& counter) { return counter.count != 0; };
      EXPECT_EQ(counts.any(HostCluster(first), HostCluster(first + count)),
                std::any_of(model.begin() + first, model.begin() + first + count, used));
      EXPECT_EQ(counts.find_free(HostCluster(first)).v,
                std::find_if_not(model.begin() + first, model.end(), used) - model.begin());
    }
  }
}

/// As the allocator sees it, which keeps a little of what is freed.
TEST(ClusterCounts, WhatIsTheSameEverywhereTakesNoMemory) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers have an allocator of their own";
#endif
  constexpr uint64_t kPieces = 1000, kLimit = kPieces * ClusterCounts::kPieceClusters, kLittle = 8192;
  const auto add_to_all = [](ClusterCounts& counts, uint64_t index, uint8_t marks) {
    for (uint64_t piece = 0; piece < kPieces; ++piece) {
      counts.add(HostCluster(piece * ClusterCounts::kPieceClusters + index), 1, marks);
    }
  };
  ClusterCounts counts(kLimit, 65535);
  const auto allocated = [] { return ::mallinfo2().uordblks; };
  const size_t before = allocated();
  EXPECT_EQ(counts.add_row(HostCluster(0), kLimit, 1, ClusterCounts::kSeenCopied), kLimit);
  EXPECT_EQ(allocated(), before);
  // In any order: two bits a cluster until a piece is full.
  for (uint64_t step = 0; step < ClusterCounts::kPieceClusters; ++step) {
    add_to_all(counts, step * 7 % ClusterCounts::kPieceClusters, 0);
    if (step == 300) {
      EXPECT_GE(allocated() - before, kPieces * ClusterCounts::kPieceClusters / 4);
      EXPECT_LE(allocated() - before, kPieces * 200 + kLittle);
    }
  }
  EXPECT_LE(allocated() - before, kLittle);
  EXPECT_EQ(counts.get(HostCluster(kLimit - 1)), 2u);
  // Four different ones, and a fifth.
  for (uint64_t index = 0; index < 4; ++index) {
    for (uint64_t times = 0; times < index; ++times) add_to_all(counts, index, 0);
  }
  EXPECT_LE(allocated() - before, kPieces * 200 + kLittle);
  add_to_all(counts, 4, ClusterCounts::kSeenUncopied);
  EXPECT_GE(allocated() - before, kPieces * ClusterCounts::kPieceClusters);
  EXPECT_LE(allocated() - before, kPieces * (ClusterCounts::kPieceClusters + 100));
}

TEST(ClusterCounts, AThousandSnapshotsTakeNoMoreMemoryThanOne) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers have an allocator of their own";
#endif
  constexpr uint64_t kLimit = 1000 * ClusterCounts::kPieceClusters;
  ClusterCounts counts(kLimit, 65535);
  const size_t before = ::mallinfo2().uordblks;
  EXPECT_EQ(counts.add_row(HostCluster(0), kLimit, 1000, ClusterCounts::kSeenUncopied), kLimit);
  EXPECT_EQ(::mallinfo2().uordblks, before);
  EXPECT_EQ(counts.get(HostCluster(kLimit / 3)), 1000u);
  EXPECT_EQ(counts.marks(HostCluster(kLimit / 3)), ClusterCounts::kSeenUncopied);
}

/// All ranges with a count have a block, all blocks and the table are counted, and nothing was placed on used clusters.
void expect_self_describing(const RefcountPlacement& placement, const ClusterCounts& before, const ClusterCounts& after,
                            const Geometry& geometry) {
  std::vector<uint64_t> own;
  for (const uint64_t block : placement.table) {
    if (block != 0) own.push_back(block >> geometry.cluster_bits());
  }
  for (uint64_t i = 0; i < placement.table_clusters; ++i) {
    own.push_back((placement.table_offset.v >> geometry.cluster_bits()) + i);
  }
  for (const uint64_t cluster : own) {
    EXPECT_EQ(before.get(HostCluster(cluster)), 0u) << cluster;
    EXPECT_EQ(after.get(HostCluster(cluster)), 1u) << cluster;
  }
  EXPECT_LE(placement.table.size() * 8, placement.table_clusters * geometry.cluster_size());
  uint64_t counted = 0;
  for (uint64_t cluster = 0; cluster < after.limit(); ++cluster) {
    if (after.get(HostCluster(cluster)) == 0) continue;
    counted += before.get(HostCluster(cluster)) == 0;
    const uint64_t index = cluster / geometry.refcounts_per_block();
    ASSERT_LT(index, placement.table.size());
    EXPECT_NE(placement.table[index], 0u) << "cluster " << cluster << " has no block";
  }
  EXPECT_EQ(counted, own.size());
}

TEST(PlaceRefcounts, DescribesItselfForEachWidthAlsoWhenTheBlocksOpenNewRanges) {
  for (uint32_t order = 0; order <= 6; ++order) {
    for (const uint64_t used : {1, 5, 63, 64, 65, 255, 256, 1000, 4096}) {
      SCOPED_TRACE(testing::Message() << "order " << order << ", " << used << " clusters");
      const Geometry geometry(9, order);
      ClusterCounts counts(20'000, geometry.refcount_max()), before(20'000, geometry.refcount_max());
      for (uint64_t cluster = 0; cluster < used; ++cluster) {
        counts.add(HostCluster(cluster), 1, 0);
        before.add(HostCluster(cluster), 1, 0);
      }
      const auto placement = place_refcounts(counts, geometry, HostCluster(1));
      ASSERT_TRUE(placement.ok());
      expect_self_describing(*placement, before, counts, geometry);
    }
  }
}

TEST(PlaceRefcounts, StaysBehindWhereItIsToldTo) {
  const Geometry geometry(12, 4);
  ClusterCounts counts(1000, 65535);
  counts.add(HostCluster(0), 1, 0);
  const auto placement = place_refcounts(counts, geometry, HostCluster(500));
  ASSERT_TRUE(placement.ok());
  EXPECT_GE(placement->table_offset.v, 500u * 4096);
  EXPECT_GE(placement->table[0], 500u * 4096);
}

TEST(PlaceRefcounts, WithoutRoomIsRefused) {
  const Geometry geometry(12, 4);
  ClusterCounts counts(10, 65535);
  for (uint64_t cluster = 0; cluster < 9; ++cluster) counts.add(HostCluster(cluster), 1, 0);
  const auto placement = place_refcounts(counts, geometry, HostCluster(1));
  ASSERT_FALSE(placement.ok());
  EXPECT_EQ(placement.error().errnum(), EFBIG);
}

}  // namespace
}  // namespace coimg::qcow2
