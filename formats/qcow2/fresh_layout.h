// Where everything lies in an image that is being made. Pure.
//
// Format: qcow2, sections "Fresh layout", "Allocating a refcount block", "Growing the refcount table", "Preallocation".
#pragma once

#include <cstdint>
#include <vector>

#include "block/driver.h"
#include "block/util/offsets.h"
#include "block/util/result.h"
#include "formats/qcow2/cluster_set.h"
#include "formats/qcow2/format.h"

namespace coimg::qcow2 {

/// The plan of a new image's metadata. Clusters that are used have one reference each.
struct FreshLayout {
  uint64_t l1_entries = 0;
  HostOffset l1_table;  ///< 0 without entries
  HostOffset refcount_table;
  uint32_t refcount_table_clusters = 0;
  std::vector<uint64_t> blocks;  ///< the refcount table's entries: offset of each block, 0 for none
  /// What refcount tables that had to move have left in clusters that are free.
  struct AbandonedCluster {
    HostOffset offset;
    std::vector<uint64_t> entries;
  };
  std::vector<AbandonedCluster> abandoned;
  std::vector<ClusterRun> used;       ///< in order
  std::vector<HostOffset> l2_tables;  ///< one a L1 entry; none without preallocation
  std::vector<HostOffset> data;       ///< of each L2 table's clusters, which are in a row; none in a data file
  uint64_t file_bytes = 0;
};

/// An empty disk of `size` bytes, laid out as qemu-img does it, so that new images are equal to the byte.
///
///     | header | refcount table | refcount block | L1 table | more blocks, when the L1 table is large |
///
/// `size` is within what the L1 table's limit allows. Errors: EFBIG when the refcount table would become too large.
Result<FreshLayout> plan_empty_disk(const Geometry& geometry, uint64_t size);

/// A disk with a place for every cluster, laid out as qemu-img does it. With kMetadata each L2 table lies in front of
/// its data. With kFalloc and kFull the data are in one piece, behind all refcounts that will be needed:
///
///     | header | L2 table | refcount block | L1 table | more blocks | refcount table | data | more L2 tables |
Result<FreshLayout> plan_preallocated_disk(const Geometry& geometry, uint64_t size, Preallocation preallocation);

}  // namespace coimg::qcow2
