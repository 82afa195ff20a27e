// Making a new image: options become a header, the header's geometry a layout, and the layout is written. The header
// goes last: until it is there the file is not an image that anyone would open.
//
// Format: qcow2, section "Create".
#include "formats/qcow2/create.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "block/node.h"
#include "block/util/buffer.h"
#include "block/util/math.h"
#include "formats/qcow2/fresh_layout.h"

namespace coimg::qcow2 {

namespace {

constexpr uint64_t kMaxStoredZeros = 64 * kKiB;
constexpr size_t kReservedAtOnce = 1024;

Result<void> write_table(BlockNode& file, HostOffset offset, std::span<const uint64_t> entries) coroutine_fn {
  const std::vector<be64> stored(entries.begin(), entries.end());
  return file.co_pwrite(offset.v, std::as_bytes(std::span(stored)));
}

/// Each refcount block, counting one for what lies in the runs that it covers.
Result<void> write_refcount_blocks(BlockNode& file, const Geometry& geometry, const FreshLayout& layout) coroutine_fn {
  const uint64_t per_block = geometry.refcounts_per_block();
  AlignedBuffer block(geometry.cluster_size());
  for (size_t slot = 0; slot < layout.blocks.size(); ++slot) {
    if (layout.blocks[slot] == 0) continue;
    const uint64_t first = slot * per_block, end = first + per_block;
    std::memset(block.data(), 0, block.size());
    for (const ClusterRun& run : layout.used) {
      for (uint64_t k = std::max(run.first.v, first); k < std::min(run.end.v, end); ++k) {
        write_refcount(block.data(), k - first, geometry.refcount_order(), 1);
      }
    }
    COIMG_TRY(file.co_pwrite(layout.blocks[slot], block.span()));
  }
  return {};
}

/// The refcount table, and what is left of those that had to give way.
Result<void> write_table_clusters(BlockNode& file, const Geometry& geometry, const FreshLayout& layout) coroutine_fn {
  std::vector<uint64_t> table = layout.blocks;
  table.resize(layout.refcount_table_clusters * geometry.cluster_size() / sizeof(be64));
  COIMG_TRY(write_table(file, layout.refcount_table, table));
  for (const FreshLayout::AbandonedCluster& old : layout.abandoned) {
    COIMG_TRY(write_table(file, old.offset, old.entries));
  }
  return {};
}

Result<void> write_zeros(BlockNode& file, HostOffset offset, uint64_t bytes) coroutine_fn {
  // A small table is better stored than punched out of the file's space.
  if (bytes > kMaxStoredZeros) return file.co_pwrite_zeroes(offset.v, bytes);
  return file.co_pwrite(offset.v, AlignedBuffer::zeroed(bytes).span());
}

/// L2 tables that lie scattered among clusters which nothing is written to, and refcount blocks.
Result<void> reserve_tables(BlockNode& file, const Geometry& geometry, const FreshLayout& layout) coroutine_fn {
  std::vector<ByteRange> ranges;
  ranges.reserve(kReservedAtOnce);
  const auto add = [&](uint64_t offset) coroutine_fn -> Result<void> {
    ranges.push_back({offset, geometry.cluster_size()});
    if (ranges.size() < kReservedAtOnce) return {};
    COIMG_TRY(file.co_reserve(ranges));
    ranges.clear();
    return {};
  };
  for (const HostOffset table : layout.l2_tables) COIMG_TRY(add(table.v));
  for (const uint64_t block : layout.blocks) {
    if (block != 0) COIMG_TRY(add(block));
  }
  return file.co_reserve(ranges);
}

/// L1 and L2 tables that give every cluster of the disk its place.
Result<void> write_preallocated_tables(BlockNode& file, const Geometry& geometry, const FreshLayout& layout,
                                       uint64_t data_clusters) coroutine_fn {
  std::vector<be64> l1_table;
  l1_table.reserve(layout.l1_entries);
  AlignedBuffer buffer(geometry.cluster_size());
  const L2Entries entries(buffer.span(), geometry);
  for (uint64_t table = 0; table < layout.l1_entries; ++table) {
    const uint64_t first = table * geometry.l2_entries();
    // In a data file each cluster lies where the guest has it.
    const HostOffset data =
        geometry.external_data() ? HostOffset(first << geometry.cluster_bits()) : layout.data[table];
    for (uint64_t i = 0; i < geometry.l2_entries(); ++i) {
      // Extended entries have a place, and nothing stored there yet.
      const HostOffset host = data + (i << geometry.cluster_bits());
      entries.store(i, first + i < data_clusters ? L2Entry::normal(host).with_map({}) : L2Entry());
    }
    COIMG_TRY(file.co_pwrite(layout.l2_tables[table].v, buffer.span()));
    l1_table.emplace_back(L1Entry::table(layout.l2_tables[table], true).raw());
  }
  return file.co_pwrite(layout.l1_table.v, std::as_bytes(std::span(l1_table)));
}

}  // namespace

Result<CreatePlan> plan_image(const CreateOptions& options) {
  CreatePlan plan{.header = COIMG_TRY(header_for_options(options)), .layout = {}};
  const Geometry geometry = plan.header.geometry();
  plan.preallocation = COIMG_TRY(preallocation_of(options));
  // A raw data file has all that the disk has.
  plan.preallocated =
      plan.preallocation != Preallocation::kOff || (plan.header.autoclear_features & kRawExternalData) != 0;
  plan.layout = COIMG_TRY(plan.preallocated ? plan_preallocated_disk(geometry, plan.header.size, plan.preallocation)
                                            : plan_empty_disk(geometry, plan.header.size));
  return plan;
}

Result<void> create_image(BlockNode& file, const CreateOptions& options) {
  CreatePlan plan = COIMG_TRY(plan_image(options));
  Header& header = plan.header;
  const FreshLayout& layout = plan.layout;
  const Preallocation preallocation = plan.preallocation;
  const Geometry geometry = header.geometry();
  if (plan.preallocated) {
    // What only metadata refer to stays a hole.
    const bool reserve = preallocation == Preallocation::kFalloc || preallocation == Preallocation::kFull;
    COIMG_TRY(file.co_truncate(layout.file_bytes, reserve ? preallocation : Preallocation::kOff));
    if (!reserve && layout.l2_tables.size() > 1) COIMG_TRY(reserve_tables(file, geometry, layout));
    COIMG_TRY(write_preallocated_tables(file, geometry, layout, geometry.clusters_for(header.size)));
  } else if (layout.l1_entries != 0) {
    COIMG_TRY(write_zeros(file, layout.l1_table, layout.l1_entries * sizeof(be64)));
  }
  COIMG_TRY(write_refcount_blocks(file, geometry, layout));
  COIMG_TRY(write_table_clusters(file, geometry, layout));
  COIMG_TRY(file.co_flush());

  header.l1_size = static_cast<uint32_t>(layout.l1_entries);
  header.l1_table_offset = layout.l1_table;
  header.refcount_table_offset = layout.refcount_table;
  header.refcount_table_clusters = layout.refcount_table_clusters;
  COIMG_TRY(file.co_pwrite(0, COIMG_TRY(encode_header(header))).with_context("Could not write qcow2 header"));
  return file.co_flush();
}

}  // namespace coimg::qcow2
