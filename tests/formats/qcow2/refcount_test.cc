#include "formats/qcow2/refcount.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "block/util/endian.h"
#include "coroutine/main_loop.h"
#include "formats/qcow2/refcount_scan.h"
#include "tests/support/fault_driver.h"

namespace coimg::qcow2 {
namespace {

using ::testing::HasSubstr;

/// A file with a refcount table in cluster 1 and one block in cluster 2, and the three clusters in use; it stands for a
/// whole image, with the header reduced to where the table is.
class Counted final : public RefcountTableOwner {
 public:
  explicit Counted(uint32_t cluster_bits = 9, uint32_t order = 4, std::shared_ptr<MemDisk> disk = {})
      : geometry(cluster_bits, order), file(make_fault_node(disk ? disk : empty_disk(geometry))) {}

  static std::shared_ptr<MemDisk> empty_disk(const Geometry& geometry) {
    const uint64_t size = geometry.cluster_size();
    auto disk = std::make_shared<MemDisk>(std::vector<std::byte>(3 * size));
    *reinterpret_cast<be64*>(&disk->bytes[size]) = 2 * size;
    for (uint64_t i = 0; i < 3; ++i) write_refcount(&disk->bytes[2 * size], i, geometry.refcount_order(), 1);
    return disk;
  }

  void load() coroutine_fn { ASSERT_TRUE(refcounts.load(table_offset, table_clusters).ok()); }
  /// A second look at what is on disk, past all caches.
  uint64_t stored_refcount(HostCluster cluster) coroutine_fn {
    MetadataCache fresh_blocks(*file, *file, geometry.cluster_size(), 4, "refcount block");
    RefcountTable fresh(*file, geometry, fresh_blocks, *this);
    EXPECT_TRUE(fresh.load(table_offset, table_clusters).ok());
    const auto value = fresh.refcount(cluster);
    EXPECT_TRUE(value.ok());
    return value.value_or(UINT64_MAX);
  }
  FaultDriver& faults() { return fault_driver(*file); }

  Result<void> store_refcount_table_location(HostOffset offset, uint32_t clusters) coroutine_fn override {
    be64 stored(offset.v);  // stands for the header
    COIMG_TRY(file->co_pwrite(0, std::as_bytes(std::span(&stored, 1))));
    COIMG_TRY(file->co_flush());
    table_offset = offset;
    table_clusters = clusters;
    return {};
  }
  Result<void> write_back_l2_tables() coroutine_fn override { return tables.write_back(); }

  const Geometry geometry;
  std::unique_ptr<BlockNode> file;
  HostOffset table_offset{geometry.cluster_size()};
  uint32_t table_clusters = 1;
  MetadataCache blocks{*file, *file, geometry.cluster_size(), 8, "refcount block"};
  MetadataCache tables{*file, *file, geometry.cluster_size(), 8, "L2 table"};
  RefcountTable refcounts{*file, geometry, blocks, *this};
};

void run(void (*test)()) {
  run_in_main_loop([test]() coroutine_fn { test(); });
}

TEST(RefcountScan, FindsAndCountsFreeAndUsedForEveryWidth) {
  std::mt19937_64 random(11);
  for (uint32_t order = 0; order <= 6; ++order) {
    SCOPED_TRACE(order);
    const uint64_t entries = 512 * 8 >> order;
    for (int round = 0; round < 50; ++round) {
      std::vector<std::byte> block(512);
      const bool mostly_used = round % 2;
      for (uint64_t i = 0; i < entries; ++i) {
        const bool used = (random() % 40 == 0) != mostly_used;
        const Geometry geometry(9, order);
        if (used) write_refcount(block.data(), i, order, 1 + random() % geometry.refcount_max());
      }
      const uint64_t from = random() % entries, to = from + random() % (entries - from + 1);
      uint64_t free = from, used = from;
      while (free < to && read_refcount(block.data(), free, order) != 0) ++free;
      while (used < to && read_refcount(block.data(), used, order) == 0) ++used;
      ASSERT_EQ(first_free(block.data(), from, to, order), free);
      ASSERT_EQ(first_used(block.data(), from, to, order), used);
      uint64_t in_use = 0;
      for (uint64_t i = 0; i < to; ++i) in_use += read_refcount(block.data(), i, order) != 0;
      ASSERT_EQ(count_used(block.data(), to, order), in_use);
    }
  }
}

TEST(RefcountTable, HandsOutTheFirstRunThatIsLongEnough) {
  run([]() coroutine_fn {
    Counted image;
    image.load();
    EXPECT_EQ(image.refcounts.allocate(ClusterCount(4)), HostCluster(3));
    EXPECT_EQ(image.refcounts.allocate(ClusterCount(2)), HostCluster(7));
    image.refcounts.free_best_effort(HostCluster(4), ClusterCount(2));
    EXPECT_EQ(image.refcounts.allocate(ClusterCount(3)), HostCluster(9)) << "the hole is too small";
    EXPECT_EQ(image.refcounts.allocate(ClusterCount(1)), HostCluster(4));
    EXPECT_EQ(image.refcounts.allocate(ClusterCount(1)), HostCluster(5));
    EXPECT_EQ(image.refcounts.allocate(ClusterCount(1)), HostCluster(12));
    EXPECT_TRUE(image.file->co_close().ok());
  });
}

TEST(RefcountTable, TellsHowManyClustersTheFileHasInUse) {
  run([]() coroutine_fn {
    auto disk = Counted::empty_disk(Geometry(10, 4));
    disk->bytes.resize(4 * 1024);
    *reinterpret_cast<be64*>(&disk->bytes[1024 + 1 * 8]) = 3 * 1024;  // the block of clusters from 512 on
    for (const uint64_t index : {0, 1, 100}) write_refcount(&disk->bytes[3 * 1024], index, 4, 7);
    *reinterpret_cast<be64*>(&disk->bytes[1024 + 2 * 8]) = 512;
    Counted image(10, 4, disk);
    image.load();
    struct {
      uint64_t end, used;
    } const cases[] = {{0, 0}, {2, 2}, {3, 3}, {512, 3}, {513, 4}, {612, 5}, {613, 6}, {1024, 6}};
    for (const auto& [end, used] : cases) {
      SCOPED_TRACE(end);
      EXPECT_EQ(image.refcounts.has_used(used, HostCluster(end)), true);
      EXPECT_EQ(image.refcounts.has_used(used + 1, HostCluster(end)), false);
    }
    EXPECT_FALSE(image.refcounts.first_unaligned_block(HostCluster(1024)));
    EXPECT_EQ(image.refcounts.first_unaligned_block(HostCluster(1025)), 2u);
    EXPECT_EQ(image.refcounts.unaligned_block_message(2), "Refblock offset 0x200 unaligned (reftable index: 0x2)");
    EXPECT_TRUE(image.file->co_close().ok());
  });
}

TEST(RefcountTable, ContinuesARunOnlyAsFarAsItIsFree) {
  run([]() coroutine_fn {
    Counted image;
    image.load();
    ASSERT_EQ(image.refcounts.allocate(ClusterCount(10)), HostCluster(3));
    image.refcounts.free_best_effort(HostCluster(5), ClusterCount(3));
    EXPECT_EQ(image.refcounts.allocate_at(HostCluster(5), ClusterCount(8)), ClusterCount(3));
    EXPECT_EQ(image.refcounts.allocate_at(HostCluster(6), ClusterCount(8)), ClusterCount(0));
    EXPECT_EQ(image.refcounts.allocate_at(HostCluster(13), ClusterCount(8)), ClusterCount(8));
    EXPECT_TRUE(image.file->co_close().ok());
  });
}

TEST(RefcountTable, AFullRefcountRefusesMoreAndChangesNothing) {
  run([]() coroutine_fn {
    for (uint32_t order = 0; order <= 3; ++order) {
      Counted image(9, order);
      image.load();
      const auto cluster = image.refcounts.allocate(ClusterCount(3));
      ASSERT_TRUE(cluster.ok());
      for (uint64_t i = 1; i < image.geometry.refcount_max(); ++i) {
        ASSERT_TRUE(image.refcounts.increment(*cluster + 2, ClusterCount(1)).ok());
      }
      auto over = image.refcounts.increment(*cluster, ClusterCount(3));
      ASSERT_FALSE(over.ok());
      EXPECT_EQ(over.error().errnum(), EINVAL);
      EXPECT_EQ(image.refcounts.refcount(*cluster), 1u);
      EXPECT_EQ(image.refcounts.refcount(*cluster + 2), image.geometry.refcount_max());
      EXPECT_TRUE(image.file->co_close().ok());
    }
  });
}

TEST(RefcountTable, FreeingAFreeClusterIsDamageAndChangesNothing) {
  run([]() coroutine_fn {
    Counted image;
    image.load();
    ASSERT_EQ(image.refcounts.allocate(ClusterCount(2)), HostCluster(3));
    auto freed = image.refcounts.decrement(HostCluster(3), ClusterCount(3));
    ASSERT_FALSE(freed.ok());
    EXPECT_EQ(freed.error().errnum(), EIO);
    EXPECT_THAT(freed.error().message(), HasSubstr("0xa00"));
    EXPECT_EQ(image.refcounts.refcount(HostCluster(3)), 1u);
    EXPECT_EQ(image.refcounts.refcount(HostCluster(4)), 1u);
    EXPECT_TRUE(image.file->co_close().ok());
  });
}

TEST(RefcountTable, FreedClustersWaitUntilNothingOnDiskRefersToThem) {
  run([]() coroutine_fn {
    Counted image;
    image.load();
    ASSERT_EQ(image.refcounts.allocate(ClusterCount(2)), HostCluster(3));
    ASSERT_TRUE(image.tables.create_zeroed(HostOffset(0x10000)).ok());  // the table that drops the reference
    ASSERT_TRUE(image.blocks.depend_on(image.tables).ok());
    ASSERT_TRUE(image.refcounts.decrement(HostCluster(3), ClusterCount(1)).ok());
    EXPECT_EQ(image.refcounts.allocate(ClusterCount(1)), HostCluster(5));
    EXPECT_EQ(image.refcounts.allocate_at(HostCluster(3), ClusterCount(1)), ClusterCount(0));
    ASSERT_TRUE(image.blocks.write_back().ok());  // the table goes first
    EXPECT_EQ(image.refcounts.allocate(ClusterCount(1)), HostCluster(3));
    EXPECT_TRUE(image.file->co_close().ok());
  });
}

TEST(RefcountTable, FreedSpaceIsDiscardedUnlessItIsUsedAgain) {
  run([]() coroutine_fn {
    Counted image;
    image.load();
    ASSERT_EQ(image.refcounts.allocate(ClusterCount(6)), HostCluster(3));
    ASSERT_TRUE(image.refcounts.decrement(HostCluster(3), ClusterCount(4), FreedSpace::kDiscard).ok());
    ASSERT_EQ(image.refcounts.allocate(ClusterCount(2)), HostCluster(3));
    image.refcounts.reclaim_freed();
    std::vector<uint64_t> discarded;
    for (const LoggedIo& io : image.faults().log()) {
      if (io.op == kOpDiscard) discarded.insert(discarded.end(), {io.offset, io.bytes});
    }
    EXPECT_TRUE(discarded.empty() || discarded == (std::vector<uint64_t>{5 * 512, 2 * 512}));
    EXPECT_TRUE(image.file->co_close().ok());
  });
}

TEST(RefcountTable, StreamsShareClustersAndContinueIntoTheNext) {
  run([]() coroutine_fn {
    Counted image(12);
    image.load();
    const std::vector<uint64_t> lengths{1000, 3000, 500, 4095};
    const auto offsets = image.refcounts.allocate_streams(lengths);
    ASSERT_TRUE(offsets.ok());
    const HostOffset start(3 * 4096);
    EXPECT_EQ(*offsets, (std::vector{start, start + 1000, start + 4000, start + 4500}));
    EXPECT_EQ(image.refcounts.refcount(HostCluster(3)), 3u);
    EXPECT_EQ(image.refcounts.refcount(HostCluster(4)), 2u);
    EXPECT_EQ(image.refcounts.refcount(HostCluster(5)), 1u);
    ASSERT_EQ(image.refcounts.allocate(ClusterCount(1)), HostCluster(6));
    EXPECT_EQ(image.refcounts.allocate_bytes(4096), HostOffset(7 * 4096)) << "cluster 6 is in the way";
    EXPECT_TRUE(image.file->co_close().ok());
  });
}

TEST(RefcountTable, OneBitRefcountsGiveEachStreamItsOwnCluster) {
  run([]() coroutine_fn {
    Counted image(12, 0);
    image.load();
    EXPECT_EQ(image.refcounts.allocate_bytes(100), HostOffset(3 * 4096));
    EXPECT_EQ(image.refcounts.allocate_bytes(100), HostOffset(4 * 4096));
    EXPECT_TRUE(image.file->co_close().ok());
  });
}

TEST(RefcountTable, NoStreamFollowsOneWhoseClusterWasFreed) {
  run([]() coroutine_fn {
    Counted image(12);
    image.load();
    ASSERT_EQ(image.refcounts.allocate_bytes(100), HostOffset(3 * 4096));
    image.refcounts.free_best_effort(HostCluster(3), ClusterCount(1));
    ASSERT_EQ(image.refcounts.allocate(ClusterCount(1)), HostCluster(3));
    EXPECT_EQ(image.refcounts.allocate_bytes(100), HostOffset(4 * 4096));
    EXPECT_TRUE(image.file->co_close().ok());
  });
}

/// All clusters below the end are counted on disk as the model says.
void expect_stored(Counted& image, const std::vector<uint64_t>& model) coroutine_fn {
  ASSERT_TRUE(image.blocks.write_back().ok());
  MetadataCache blocks(*image.file, *image.file, image.geometry.cluster_size(), 8, "refcount block");
  RefcountTable fresh(*image.file, image.geometry, blocks, image);
  ASSERT_TRUE(fresh.load(image.table_offset, image.table_clusters).ok());
  for (uint64_t i = 0; i < model.size(); ++i) ASSERT_EQ(fresh.refcount(HostCluster(i)), model[i]) << "cluster " << i;
}

// 512-byte clusters and 64-bit refcounts: 64 clusters a block and 64 blocks a table, so that all structures move soon.
TEST(RefcountTable, GrowsBlocksAndTableAndCountsThemRight) {
  run([]() coroutine_fn {
    Counted image(9, 6);
    image.load();
    std::vector<HostCluster> mine;
    for (int i = 0; i < 400; ++i) {
      const auto start = image.refcounts.allocate(ClusterCount(20));
      ASSERT_TRUE(start.ok()) << start.error().message();
      for (uint64_t j = 0; j < 20; ++j) mine.push_back(*start + j);
    }
    EXPECT_GT(image.table_clusters, 1u);

    const uint64_t end = image.refcounts.end_of_used()->v;
    std::vector<uint64_t> model(end + 100);
    model[0] = 1;
    for (const HostCluster cluster : mine) ++model[cluster.v];
    for (const uint64_t entry : image.refcounts.entries()) {
      if (entry) ++model[entry / 512];
    }
    for (uint64_t i = 0; i < image.table_clusters; ++i) ++model[image.table_offset.v / 512 + i];
    EXPECT_THAT(model, testing::Each(testing::Le(1u))) << "something was handed out twice";
    expect_stored(image, model);
    EXPECT_TRUE(image.file->co_close().ok());
  });
}

TEST(RefcountTable, DropsBlocksThatCountOnlyThemselves) {
  run([]() coroutine_fn {
    Counted image(9, 6);
    image.load();
    const auto start = image.refcounts.allocate(ClusterCount(60));
    const auto second = image.refcounts.allocate(ClusterCount(60));
    ASSERT_TRUE(start.ok() && second.ok());
    image.refcounts.free_best_effort(*second, ClusterCount(60));
    ASSERT_TRUE(image.blocks.write_back().ok());
    const uint64_t before = image.refcounts.end_of_used()->v;
    ASSERT_TRUE(image.refcounts.drop_empty_blocks().ok());
    EXPECT_LT(image.refcounts.end_of_used()->v, before);
    std::vector<uint64_t> model(200);
    model[0] = model[1] = 1;
    for (uint64_t i = 0; i < 60; ++i) model[start->v + i] = 1;
    for (const uint64_t entry : image.refcounts.entries()) {
      if (entry) ++model[entry / 512];
    }
    expect_stored(image, model);
    EXPECT_TRUE(image.file->co_close().ok());
  });
}

// Each I/O of an allocation fails once. Whichever it is, nothing may be lost, and nothing handed out twice afterwards.
TEST(RefcountTable, AllocateIsAllOrNothingWhicheverIoFails) {
  run([]() coroutine_fn {
    // Grown to where the next allocations need a new block and a larger table.
    auto disk = Counted::empty_disk(Geometry(9, 6));
    HostOffset table_offset;
    uint32_t table_clusters = 0;
    {
      Counted image(9, 6, disk);
      image.load();
      while (image.refcounts.end_of_used()->v < 64 * 64 - 30) {
        ASSERT_TRUE(image.refcounts.allocate(ClusterCount(20)).ok());
      }
      ASSERT_TRUE(image.blocks.write_back().ok());
      table_offset = image.table_offset;
      table_clusters = image.table_clusters;
      ASSERT_EQ(table_clusters, 1u);
      EXPECT_TRUE(image.file->co_close().ok());
    }
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(fmt::format("I/O number {} fails", nth));
      Counted image(9, 6, std::make_shared<MemDisk>(disk->bytes));
      image.table_offset = table_offset;
      image.table_clusters = table_clusters;
      image.load();
      const uint64_t free_from = image.refcounts.end_of_used()->v;
      image.blocks.trim();
      image.faults().fail_nth_io(nth, ENOSPC);

      auto allocated = image.refcounts.allocate(ClusterCount(50));
      const bool fired = image.faults().fired();
      EXPECT_TRUE(allocated.ok() || fired);
      image.faults().heal();
      if (!allocated.ok()) {  // else only freeing the old table failed, which leaks it
        EXPECT_EQ(allocated.error().errnum(), ENOSPC);
        allocated = image.refcounts.allocate(ClusterCount(50));
        ASSERT_TRUE(allocated.ok()) << allocated.error().message();
      }
      EXPECT_GT(image.table_clusters, 1u);
      std::vector<uint64_t> references(image.refcounts.end_of_used()->v + 100);
      for (uint64_t i = 0; i < 50; ++i) ++references[allocated->v + i];
      for (const uint64_t entry : image.refcounts.entries()) {
        if (entry) ++references[entry / 512];
      }
      for (uint64_t i = 0; i < image.table_clusters; ++i) ++references[image.table_offset.v / 512 + i];
      EXPECT_THAT(references, testing::Each(testing::Le(1u))) << "something was handed out twice";
      ASSERT_TRUE(image.blocks.write_back().ok());
      for (uint64_t i = free_from; i < references.size(); ++i) {
        ASSERT_GE(image.stored_refcount(HostCluster(i)), references[i]) << "cluster " << i;
      }
      EXPECT_TRUE(image.file->co_close().ok());
      if (!fired) {
        EXPECT_GT(nth, 8u) << "the allocation did not grow anything, so nothing was tested";
        return;
      }
    }
  });
}

}  // namespace
}  // namespace coimg::qcow2
