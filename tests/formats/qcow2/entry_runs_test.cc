#include "formats/qcow2/entry_runs.h"

#include <gtest/gtest.h>

#include <vector>

namespace coimg::qcow2 {
namespace {

std::vector<be64> entries_in_a_row(size_t count, uint64_t first, uint64_t step) {
  std::vector<be64> entries;
  for (size_t i = 0; i < count; ++i) entries.emplace_back(first + i * step);
  return entries;
}

TEST(EntryRuns, EndWhereAnEntryDiffersOrThereAreNoMore) {
  constexpr uint64_t kFirst = 0x8000'0000'0001'0000, kStep = 0x10000;
  for (size_t count = 0; count < 70; ++count) {
    auto entries = entries_in_a_row(count, kFirst, kStep);
    EXPECT_EQ(count_run(entries, kFirst, kStep, ~uint64_t{0}), count);
    for (size_t odd = 0; odd < count; ++odd) {
      const be64 before = entries[odd];
      for (const unsigned bit : {0u, 17u, 63u}) {
        entries[odd] = uint64_t{before} ^ (uint64_t{1} << bit);
        EXPECT_EQ(count_run(entries, kFirst, kStep, ~uint64_t{0}), odd) << count << " entries, bit " << bit;
      }
      entries[odd] = before;
    }
  }
}

TEST(EntryRuns, BitsOutsideOfTheMaskDoNotCount) {
  auto entries = entries_in_a_row(40, 0, 0);
  for (size_t i = 0; i < entries.size(); i += 3) entries[i] = uint64_t{1} << 63;
  EXPECT_EQ(count_run(entries, 0, 0, ~(uint64_t{1} << 63)), 40u);
  entries[33] = 1;
  EXPECT_EQ(count_run(entries, 0, 0, ~(uint64_t{1} << 63)), 33u);
}

TEST(EntryRuns, AStepMayWrapAround) {
  const auto entries = entries_in_a_row(40, ~uint64_t{0} - 5, 1);
  EXPECT_EQ(count_run(entries, ~uint64_t{0} - 5, 1, ~uint64_t{0}), 40u);
}

}  // namespace
}  // namespace coimg::qcow2
