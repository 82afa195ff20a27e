// How much is read at once, and how often side by side: one rule for whoever moves whole images.
#pragma once

#include <cstdint>

namespace coimg {

/// What a mover of whole images needs to know about them.
struct TransferNeeds {
  uint64_t unit = 1;         ///< chunks are multiples of it; power of two
  uint64_t least_bytes = 0;  ///< of a chunk
  uint64_t decode_unit = 0;  ///< the sources' largest compression_unit; power of two or 0
  unsigned buffers = 1;      ///< of a chunk's size that a worker fills
  unsigned most_workers = 1;
};

struct TransferSize {
  uint64_t chunk_bytes = 0;
  unsigned workers = 1;
};

/// Chunks of 2 MiB or, where compressed clusters are larger, of one such cluster, so that none is decoded twice. As
/// many workers as fit into 24 MiB: the process stays below 64 MiB whatever the cluster sizes are.
TransferSize transfer_size(const TransferNeeds& needs);

}  // namespace coimg
