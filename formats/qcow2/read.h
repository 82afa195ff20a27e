// What reading keeps between requests.
#pragma once

#include <cstdint>

#include "block/util/buffer.h"

namespace coimg::qcow2 {

/// The content of a compressed cluster.
struct DecodedCluster {
  uint64_t raw_entry = 0;  ///< the L2 entry that it was decoded for
  AlignedBuffer bytes;
};

}  // namespace coimg::qcow2
