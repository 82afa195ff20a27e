// Searching packed refcounts for free and used clusters, and counting these. No I/O.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "block/util/offsets.h"

namespace coimg::qcow2 {

/// First index in [from, to) whose refcount is zero; `to` when there is none. `block` holds refcounts of 1 << order
/// bits, at least `to` rounded up to a multiple of 8 bytes.
uint64_t first_free(const std::byte* block, uint64_t from, uint64_t to, uint32_t order);

/// First index in [from, to) whose refcount is not zero; `to` when there is none.
uint64_t first_used(const std::byte* block, uint64_t from, uint64_t to, uint32_t order);

/// How many of the first `count` refcounts are not zero.
uint64_t count_used(const std::byte* block, uint64_t count, uint32_t order);

/// Which of the hints, where to look for free clusters, serves runs of `count` clusters: one for each power of two.
inline constexpr size_t kFreeHints = 48;
inline size_t free_hint_for(ClusterCount count) { return static_cast<size_t>(std::bit_width(count.v)) - 1; }

}  // namespace coimg::qcow2
