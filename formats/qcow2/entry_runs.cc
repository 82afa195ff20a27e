#include "formats/qcow2/entry_runs.h"

#include "block/util/cpu.h"

namespace coimg::qcow2 {

namespace {

constexpr uint64_t kBlock = 16;

/// How many of `count` entries, by blocks without a branch inside, which compilers turn into vector code.
[[gnu::always_inline]] inline uint64_t count_blocks(const be64* entries, uint64_t count, uint64_t first, uint64_t step,
                                                    uint64_t mask) {
  uint64_t done = 0;
  for (; count - done >= kBlock; done += kBlock) {
    const be64* const block = entries + done;
    const uint64_t start = first + done * step;
    uint64_t difference = 0;
    for (uint64_t i = 0; i < kBlock; ++i) difference |= (uint64_t{block[i]} ^ (start + i * step)) & mask;
    if (difference != 0) break;
  }
  return done;
}

using CountBlocks = uint64_t (*)(const be64*, uint64_t, uint64_t, uint64_t, uint64_t);

uint64_t count_blocks_anywhere(const be64* entries, uint64_t count, uint64_t first, uint64_t step, uint64_t mask) {
  return count_blocks(entries, count, first, step, mask);
}
COIMG_AVX2 uint64_t count_blocks_avx2(const be64* entries, uint64_t count, uint64_t first, uint64_t step,
                                      uint64_t mask) {
  return count_blocks(entries, count, first, step, mask);
}

}  // namespace

uint64_t count_run(std::span<const be64> entries, uint64_t first, uint64_t step, uint64_t mask) {
  const auto continues = [&](uint64_t i) { return ((uint64_t{entries[i]} ^ (first + i * step)) & mask) == 0; };
  uint64_t done = 0;
  // Most runs are short, or longer than a few blocks.
  while (done < entries.size() && done < 4) {
    if (!continues(done)) return done;
    ++done;
  }
  static const CountBlocks best = processor_has_avx2() ? count_blocks_avx2 : count_blocks_anywhere;
  done += best(entries.data() + done, entries.size() - done, first + done * step, step, mask);
  while (done < entries.size() && continues(done)) ++done;
  return done;
}

}  // namespace coimg::qcow2
