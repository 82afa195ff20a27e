// Extent: the answer to a lookup of a guest range.
#pragma once

#include <cstdint>

#include "formats/qcow2/format.h"

namespace coimg::qcow2 {

/// A guest range that has one answer.
struct Extent {
  ClusterType type = ClusterType::kUnallocated;
  uint64_t bytes = 0;              ///< from the guest offset asked for; never across a compressed cluster
  HostOffset host;                 ///< of the first byte, where there is a place for it; not for kCompressed
  L2Entry entry;                   ///< of the first cluster; for kCompressed the stream's place
  bool writable_in_place = false;  ///< kNormal with COPIED on L1 and L2 entry, for all clusters of the range
  bool complete = false;           ///< what follows is known to be of another kind or to lie elsewhere
};

}  // namespace coimg::qcow2
