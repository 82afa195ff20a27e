#include "formats/qcow2/format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace coimg::qcow2 {
namespace {

using ::testing::ElementsAre;

constexpr uint64_t kSomeRefcounts[] = {1, 1, 1, 1, 1, 2, 1, 2, 2, 2, 1, 1, 1, 1};

std::vector<uint8_t> packed(uint32_t order) {
  std::vector<uint8_t> block(((std::size(kSomeRefcounts) << order) + 7) / 8);
  for (size_t i = 0; i < std::size(kSomeRefcounts); ++i) {
    write_refcount(reinterpret_cast<std::byte*>(block.data()), i, order, kSomeRefcounts[i]);
  }
  return block;
}

// As in images that QEMU made.
TEST(RefcountEntryTest, SmallEntriesStartInTheLeastSignificantBits) {
  EXPECT_THAT(packed(1), ElementsAre(0x55, 0x99, 0x5a, 0x05));
  EXPECT_THAT(packed(2), ElementsAre(0x11, 0x11, 0x21, 0x21, 0x22, 0x11, 0x11));
}

TEST(RefcountEntryTest, LargeEntriesAreBigEndian) {
  std::byte block[16] = {};
  write_refcount(block, 1, 4, 0x1234);
  EXPECT_EQ(block[2], std::byte{0x12});
  write_refcount(block, 1, 6, 0x0102030405060708);
  EXPECT_EQ(block[8], std::byte{0x01});
  EXPECT_EQ(block[15], std::byte{0x08});
}

TEST(RefcountEntryTest, EveryWidthKeepsItsNeighbours) {
  std::mt19937_64 random(7);
  for (uint32_t order = 0; order <= kMaxRefcountOrder; ++order) {
    const Geometry geometry(9, order);
    std::vector<std::byte> block(geometry.cluster_size());
    std::vector<uint64_t> model(geometry.refcounts_per_block());
    for (int step = 0; step < 20000; ++step) {
      const uint64_t index = random() % model.size();
      model[index] = random() & geometry.refcount_max();
      write_refcount(block.data(), index, order, model[index]);
    }
    for (uint64_t i = 0; i < model.size(); ++i) {
      ASSERT_EQ(read_refcount(block.data(), i, order), model[i]) << "order " << order << ", entry " << i;
    }
  }
}

TEST(RefcountMetadataTest, CountsItselfAndNotMore) {
  for (const uint32_t cluster_bits : {9u, 12u, 16u, 21u}) {
    for (uint32_t order = 0; order <= kMaxRefcountOrder; ++order) {
      const Geometry geometry(cluster_bits, order);
      for (const uint64_t clusters : {uint64_t{0}, uint64_t{1}, uint64_t{63}, uint64_t{4095}, uint64_t{1} << 30}) {
        const RefcountMetadata metadata = refcount_metadata_for(geometry, clusters);
        const uint64_t all = clusters + metadata.table_clusters + metadata.blocks;
        EXPECT_EQ(metadata.blocks, div_ceil(all, geometry.refcounts_per_block()));
        EXPECT_EQ(metadata.table_clusters, div_ceil(metadata.blocks * 8, geometry.cluster_size()));
      }
    }
  }
}

struct CompressedExample {
  uint32_t cluster_bits;
  uint64_t entry, offset, bytes;
};

TEST(L2EntryTest, TellsWhereACompressedStreamLies) {
  for (const auto& [cluster_bits, raw, offset, bytes] : {
           CompressedExample{12, 0x4c00000000005000, 0x5000, 2048},
           CompressedExample{12, 0x5000000000005703, 0x5703, 2301},
           CompressedExample{16, 0x4b00000000055a8e, 0x55a8e, 22898},
           CompressedExample{21, 0x4590000000a00000, 0xa00000, 365056},
       }) {
    const Geometry geometry(cluster_bits, 4);
    const L2Entry entry(raw);
    EXPECT_EQ(entry.type(), ClusterType::kCompressed);
    const CompressedRange range = entry.compressed_range(geometry);
    EXPECT_EQ(range.offset.v, offset);
    EXPECT_EQ(range.bytes, bytes);
    EXPECT_EQ(L2Entry::compressed(geometry, range.offset, bytes).raw(), raw);
    EXPECT_EQ(L2Entry::compressed(geometry, range.offset, bytes - 511).raw(), raw) << "the same sectors";
  }
}

TEST(L2EntryTest, ClassifiesEntries) {
  EXPECT_EQ(L2Entry(0).type(), ClusterType::kUnallocated);
  EXPECT_EQ(L2Entry(kEntryCopied).type(), ClusterType::kUnallocated);
  EXPECT_EQ(L2Entry(1).type(), ClusterType::kZeroPlain);
  EXPECT_EQ(L2Entry(0x8000000000050001).type(), ClusterType::kZeroAllocated);
  EXPECT_EQ(L2Entry(0x8000000000050000).type(), ClusterType::kNormal);
  EXPECT_EQ(L2Entry(kL2Compressed | 1).type(), ClusterType::kCompressed);
}

}  // namespace
}  // namespace coimg::qcow2
