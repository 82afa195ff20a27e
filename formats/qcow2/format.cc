// Refcount entries of all widths, and how many clusters refcounts take.
//
// Format: qcow2, sections "Entry packing", "Growing the refcount table".
#include "formats/qcow2/format.h"

#include <cassert>

namespace coimg::qcow2 {

namespace {

template <typename T>
T load_at(const std::byte* block, uint64_t index) {
  return reinterpret_cast<const T*>(block)[index];
}

template <typename T, typename Value>
void store_at(std::byte* block, uint64_t index, Value value) {
  reinterpret_cast<T*>(block)[index] = value;
}

/// Where entry `index` of less than 8 bits lies: the lowest index in the least significant bits of its byte.
struct BitPlace {
  uint64_t byte_index;
  uint32_t shift;
  uint8_t mask;  ///< not shifted
};
BitPlace bit_place(uint64_t index, uint32_t order) {
  const uint32_t per_byte_log2 = 3 - order;
  return {.byte_index = index >> per_byte_log2,
          .shift = static_cast<uint32_t>(index & ((1u << per_byte_log2) - 1)) << order,
          .mask = static_cast<uint8_t>((1u << (1u << order)) - 1)};
}

}  // namespace

uint64_t read_refcount(const std::byte* block, uint64_t index, uint32_t order) {
  assert(order <= kMaxRefcountOrder);
  switch (order) {
    case 3:
      return load_at<uint8_t>(block, index);
    case 4:
      return load_at<be16>(block, index);
    case 5:
      return load_at<be32>(block, index);
    case 6:
      return load_at<be64>(block, index);
    default: {
      const BitPlace place = bit_place(index, order);
      return (load_at<uint8_t>(block, place.byte_index) >> place.shift) & place.mask;
    }
  }
}

void write_refcount(std::byte* block, uint64_t index, uint32_t order, uint64_t value) {
  assert(order <= kMaxRefcountOrder);
  assert(order == kMaxRefcountOrder || value >> (1u << order) == 0);
  switch (order) {
    case 3:
      return store_at<uint8_t>(block, index, static_cast<uint8_t>(value));
    case 4:
      return store_at<be16>(block, index, static_cast<uint16_t>(value));
    case 5:
      return store_at<be32>(block, index, static_cast<uint32_t>(value));
    case 6:
      return store_at<be64>(block, index, value);
    default: {
      const BitPlace place = bit_place(index, order);
      const auto old = load_at<uint8_t>(block, place.byte_index);
      const unsigned cleared = old & ~(unsigned{place.mask} << place.shift);
      store_at<uint8_t>(block, place.byte_index, static_cast<uint8_t>(cleared | value << place.shift));
    }
  }
}

RefcountMetadata refcount_metadata_for(const Geometry& geometry, uint64_t clusters) {
  // Refcounts have to count themselves, too. Both numbers only grow, so this ends at the smallest solution.
  RefcountMetadata metadata;
  for (;;) {
    const uint64_t total = clusters + metadata.table_clusters + metadata.blocks;
    const uint64_t blocks = div_ceil(total, geometry.refcounts_per_block());
    const uint64_t table_clusters = div_ceil(blocks, geometry.cluster_size() / sizeof(be64));
    if (blocks == metadata.blocks && table_clusters == metadata.table_clusters) return metadata;
    metadata = {.table_clusters = table_clusters, .blocks = blocks};
  }
}

Result<GrownRefcountTable> grow_refcount_table(const Geometry& geometry, uint64_t described_blocks) {
  constexpr uint64_t kMaxEntries = kMaxRefcountTableBytes / sizeof(be64);
  const HostCluster first(described_blocks * geometry.refcounts_per_block());
  const RefcountMetadata least = refcount_metadata_for(geometry, first.v);
  const RefcountMetadata all = refcount_metadata_for(geometry, first.v + div_ceil(least.table_clusters, 2));
  if (all.blocks > kMaxEntries) return Error(EFBIG, "the refcount table would become too large");
  const uint64_t entries = std::min(all.blocks + div_ceil(all.blocks, 2), kMaxEntries);
  return GrownRefcountTable{.first = first,
                            .blocks = all.blocks - described_blocks,
                            .table_clusters = div_ceil(entries * sizeof(be64), geometry.cluster_size())};
}

}  // namespace coimg::qcow2
