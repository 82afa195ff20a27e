// What reading keeps between requests.
#pragma once

#include <cstdint>
#include <vector>

#include "block/util/buffer.h"
#include "formats/qcow2/format.h"

namespace coimg::qcow2 {

/// The content of a compressed cluster.
struct DecodedCluster {
  uint64_t raw_entry = 0;  ///< the L2 entry that it was decoded for
  AlignedBuffer bytes;
};

/// Guest clusters in a row, all compressed, whose streams lie close together in the file.
struct CompressedRun {
  std::vector<L2Entry> entries;
  HostOffset begin, end;  ///< the part of the file that has all of the streams
};

}  // namespace coimg::qcow2
