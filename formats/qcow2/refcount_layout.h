// New refcount structures as a whole: where they go, and writing them. For repair and for another width.
#pragma once

#include <cstdint>
#include <vector>

#include "block/node.h"
#include "block/util/offsets.h"
#include "block/util/result.h"
#include "formats/qcow2/cluster_counts.h"
#include "formats/qcow2/format.h"

namespace coimg::qcow2 {

/// Where new refcount structures go.
struct RefcountPlacement {
  std::vector<uint64_t> table;  ///< entries: offset of each block, 0 for none
  HostOffset table_offset;
  uint64_t table_clusters = 0;
};

/// Finds room for refcount structures that describe `counts`, in free clusters at or behind `from`, and counts that
/// room in. Pure. Errors: EFBIG when the table would become too large.
Result<RefcountPlacement> place_refcounts(ClusterCounts& counts, const Geometry& geometry, HostCluster from);

/// Writes blocks and table as placed, and flushes. Nothing refers to them yet. Errors: what the file reported.
Result<void> write_refcounts(BlockNode& file, const ClusterCounts& counts, const RefcountPlacement& placement,
                             const Geometry& geometry) coroutine_fn;

}  // namespace coimg::qcow2
