#include "formats/qcow2/refcount_scan.h"

#include <algorithm>
#include <cstring>

#include "formats/qcow2/format.h"

namespace coimg::qcow2 {

namespace {

uint64_t load_word(const std::byte* block, uint64_t word) {
  uint64_t value;
  std::memcpy(&value, block + word * 8, sizeof value);
  return value;
}

/// Whether one of the word's fields of 1 << order bits is zero. Fields do not straddle words, and within bytes and
/// words their order does not matter here, so neither does byte order.
bool has_zero_field(uint64_t word, uint32_t order) {
  if (order == 6) return word == 0;
  const uint32_t bits = 1u << order;
  const uint64_t lowest = ~uint64_t{0} / ((uint64_t{1} << bits) - 1);  // 1 in each field
  const uint64_t highest = lowest << (bits - 1);
  return ((word - lowest) & ~word & highest) != 0;
}

bool has_used_field(uint64_t word, uint32_t) { return word != 0; }

template <typename WordTest, typename EntryTest>
uint64_t search(const std::byte* block, uint64_t from, uint64_t to, uint32_t order, WordTest word_matches,
                EntryTest entry_matches) {
  const uint64_t per_word = uint64_t{64} >> order;
  while (from < to) {
    const uint64_t word = from / per_word;
    const uint64_t word_end = std::min(to, (word + 1) * per_word);
    if (word_matches(load_word(block, word), order)) {
      for (; from < word_end; ++from) {
        if (entry_matches(read_refcount(block, from, order))) return from;
      }
    }
    from = word_end;
  }
  return to;
}

/// Whole bytes or more each; compilers turn it into vector code. Byte order does not matter for zero.
template <typename Refcount>
uint64_t count_nonzero(const std::byte* block, uint64_t count) {
  uint64_t used = 0;
  for (uint64_t i = 0; i < count; ++i) {
    Refcount refcount;
    std::memcpy(&refcount, block + i * sizeof refcount, sizeof refcount);
    used += refcount != 0;
  }
  return used;
}

}  // namespace

uint64_t first_free(const std::byte* block, uint64_t from, uint64_t to, uint32_t order) {
  return search(block, from, to, order, has_zero_field, [](uint64_t refcount) { return refcount == 0; });
}

uint64_t first_used(const std::byte* block, uint64_t from, uint64_t to, uint32_t order) {
  return search(block, from, to, order, has_used_field, [](uint64_t refcount) { return refcount != 0; });
}

uint64_t count_used(const std::byte* block, uint64_t count, uint32_t order) {
  switch (order) {
    case 3:
      return count_nonzero<uint8_t>(block, count);
    case 4:
      return count_nonzero<uint16_t>(block, count);
    case 5:
      return count_nonzero<uint32_t>(block, count);
    case 6:
      return count_nonzero<uint64_t>(block, count);
    default: {
      uint64_t used = 0;
      for (uint64_t i = 0; i < count; ++i) used += read_refcount(block, i, order) != 0;
      return used;
    }
  }
}

}  // namespace coimg::qcow2
