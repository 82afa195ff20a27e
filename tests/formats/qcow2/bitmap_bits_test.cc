// The bits of a bitmap in memory, against a plain array of bools.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "formats/qcow2/bitmap_bits.h"

namespace coimg::qcow2 {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

constexpr uint64_t kChunk = 512;
constexpr uint8_t kGranularityBits = 9;

/// All bits, with `stored` standing for each cluster that is on disk.
std::vector<bool> all_bits(const BitmapBits& bits, std::byte stored = std::byte{0}) {
  std::vector<bool> result;
  for (uint64_t chunk = 0; chunk < bits.chunks(); ++chunk) {
    std::vector<std::byte> content(bits.chunk_bytes(), stored);
    bits.compose(chunk, content);
    for (uint64_t bit = 0; bit < bits.chunk_bytes() * 8; ++bit) {
      const bool set = (content[bit / 8] >> (bit % 8) & std::byte{1}) != std::byte{0};
      if (bit < bits.bits_in(chunk)) {
        result.push_back(set);
      } else {
        EXPECT_FALSE(set) << "bit " << bit << " of chunk " << chunk << " is behind the end";
      }
    }
  }
  return result;
}

TEST(BitmapBits, SetsTheGranulesThatARangeTouches) {
  BitmapBits bits(10 * 512, kGranularityBits, kChunk);
  bits.set(511, 2);
  bits.set(5 * 512, 512);
  bits.set(9 * 512 + 100, 10000);  // past the end
  bits.set(50 * 512, 512);         // behind it
  bits.set(3 * 512, 0);
  EXPECT_THAT(all_bits(bits), ElementsAre(true, true, false, false, false, true, false, false, false, true));
}

TEST(BitmapBits, RandomRangesMatchAModel) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 50; ++round) {
    const uint64_t granules = 1 + random() % 20000;
    const uint64_t size = granules * 512 - random() % 512;
    BitmapBits bits(size, kGranularityBits, kChunk);
    std::vector<bool> model(granules);
    for (int i = 0; i < 30; ++i) {
      const uint64_t offset = random() % size, bytes = 1 + random() % (random() % 2 ? 5000 : size);
      bits.set(offset, bytes);
      for (uint64_t granule = offset / 512; granule <= std::min(offset + bytes - 1, size - 1) / 512; ++granule) {
        model[granule] = true;
      }
    }
    ASSERT_EQ(all_bits(bits), model);
    std::vector<bool> runs(granules);
    for (uint64_t chunk = 0; chunk < bits.chunks(); ++chunk) {
      std::vector<std::byte> content(kChunk);
      bits.compose(chunk, content);
      for_each_run(content, [&](uint64_t first, uint64_t count) {
        ASSERT_GT(count, 0u);
        for (uint64_t bit = first; bit < first + count; ++bit) runs[chunk * kChunk * 8 + bit] = true;
      });
    }
    ASSERT_EQ(runs, model);
  }
}

TEST(BitmapBits, RunsAreAsLongAsTheyCanBe) {
  std::vector<std::byte> content(32);
  set_bits(content, 3, 2);
  set_bits(content, 60, 70);
  set_bits(content, 255, 1);
  std::vector<std::pair<uint64_t, uint64_t>> runs;
  for_each_run(content, [&](uint64_t first, uint64_t count) { runs.emplace_back(first, count); });
  EXPECT_THAT(runs, ElementsAre(Pair(3, 2), Pair(60, 70), Pair(255, 1)));
}

TEST(BitmapBits, AddsToWhatIsStored) {
  const uint64_t bits_per_chunk = kChunk * 8;
  BitmapBits bits(3 * bits_per_chunk * 512, kGranularityBits, kChunk);
  bits.set_stored({BitmapTableEntry::stored(HostOffset(0x10000)), BitmapTableEntry::all_ones(), BitmapTableEntry()});
  EXPECT_FALSE(bits.changed());
  bits.set(0, 512);
  bits.set(bits_per_chunk * 512, 512);  // is set already
  EXPECT_THAT(bits.changed_chunks(), ElementsAre(0));
  EXPECT_EQ(bits.cluster_of(0), HostOffset(0x10000));
  EXPECT_TRUE(bits.known_clear(2));
  const std::vector<bool> seen = all_bits(bits, std::byte{0x80});
  EXPECT_TRUE(seen[0] && !seen[1] && seen[7] && seen[bits_per_chunk] && !seen[2 * bits_per_chunk]);

  bits.clear();
  EXPECT_TRUE(bits.changed());
  EXPECT_EQ(all_bits(bits, std::byte{0xff}), std::vector<bool>(3 * bits_per_chunk));
}

TEST(BitmapBits, WhatAShrinkCutsOffDoesNotComeBack) {
  BitmapBits bits(100 * 512, kGranularityBits, kChunk);
  bits.set_stored({BitmapTableEntry::stored(HostOffset(0x10000))});
  const uint64_t chunk = bits.last_kept(50 * 512);
  std::vector<std::byte> content(kChunk, std::byte{0xff});
  bits.compose(chunk, content);
  bits.settle(chunk, content);
  bits.resize(50 * 512);
  bits.resize(100 * 512);
  std::vector<bool> expected(100);
  std::fill_n(expected.begin(), 50, true);
  EXPECT_EQ(all_bits(bits), expected);

  bits.set(0, 100 * 512);
  bits.resize(9000 * 512);
  bits.resize(9 * 512);
  EXPECT_EQ(bits.chunks(), 1u);
  bits.resize(9000 * 512);
  expected.assign(9000, false);
  std::fill_n(expected.begin(), 9, true);
  EXPECT_EQ(all_bits(bits), expected);
}

TEST(BitmapTableEntry, ReservedBitsAndOddOffsetsAreInvalid) {
  const Geometry geometry(12, 4);
  for (const uint64_t good : {0ull, 1ull, 0x1000ull, 0xfffffffffff000ull}) {
    EXPECT_TRUE(BitmapTableEntry(good).valid(geometry)) << std::hex << good;
  }
  for (const uint64_t bad : {2ull, 0x100ull, 0x200ull, 0x800ull, 0x1001ull, 1ull << 56, 1ull << 63}) {
    EXPECT_FALSE(BitmapTableEntry(bad).valid(geometry)) << std::hex << bad;
  }
}

}  // namespace
}  // namespace coimg::qcow2
