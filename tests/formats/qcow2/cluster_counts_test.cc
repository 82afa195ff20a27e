#include "formats/qcow2/cluster_counts.h"

#include <gtest/gtest.h>

#include <algorithm>

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
  constexpr uint64_t kLimit = 3 * ClusterCounts::kChunkClusters;
  for (const uint64_t max : {uint64_t{1}, uint64_t{3}, uint64_t{65535}}) {
    ClusterCounts rows(kLimit, max), single(kLimit, max);
    for (uint64_t first = 0; first < kLimit; first += 7) {
      const uint64_t count = std::min(first * 5 % 300 + 1, kLimit - first);
      const uint8_t marks = first % 2 == 0 ? ClusterCounts::kSeenCopied : ClusterCounts::kSeenUncopied;
      for (uint64_t done = 0; done < count;) {
        done += rows.add_row(HostCluster(first + done), count - done, marks);
        if (done < count) rows.add(HostCluster(first + done++), 1, marks);
      }
      for (uint64_t i = 0; i < count; ++i) single.add(HostCluster(first + i), 1, marks);
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
  const uint64_t done = counts.add_row(HostCluster(0), 1000, 0);
  EXPECT_LE(done, 700u);
  EXPECT_EQ(counts.get(HostCluster(700)), 1u);
  EXPECT_FALSE(counts.any(HostCluster(done), HostCluster(700)));
}

TEST(ClusterCounts, PiecesThatWereNeverCountedInAreFree) {
  ClusterCounts counts(5 * ClusterCounts::kChunkClusters, 65535);
  const HostCluster far(3 * ClusterCounts::kChunkClusters + 5);
  counts.add(far, 1, 0);
  EXPECT_TRUE(counts.untouched(HostCluster(0), HostCluster(3 * ClusterCounts::kChunkClusters)));
  EXPECT_FALSE(counts.untouched(HostCluster(0), HostCluster(3 * ClusterCounts::kChunkClusters + 1)));
  EXPECT_FALSE(counts.any(HostCluster(0), far));
  EXPECT_TRUE(counts.any(HostCluster(0), far + 1));
  EXPECT_EQ(counts.find_free(far), far + 1);
  EXPECT_EQ(counts.narrow(HostCluster(0)), nullptr);
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
