// Compressed clusters: encoding and decoding one cluster, on a worker thread. No I/O.
//
// Format: qcow2, section "Compressed clusters".
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "block/util/result.h"
#include "formats/qcow2/format.h"

namespace coimg::qcow2 {

/// Compresses one cluster. Returns the stream's length in `stream` (which holds cluster.size() bytes), or nothing when
/// it would not be shorter than the cluster: then it is stored plain. `level` is from 1, fast, to 19, small; 0 leaves
/// the choice to the type. Deterministic. Not a coroutine_fn: CPU work.
Result<std::optional<size_t>> compress_cluster(CompressionType type, unsigned level, std::span<const std::byte> cluster,
                                               std::span<std::byte> stream);

/// Decodes `stream` (an upper bound, trailing bytes are ignored as QEMU does) into exactly cluster.size() bytes.
/// Errors: EIO for a stream that does not decode to a full cluster.
Result<void> decompress_cluster(CompressionType type, std::span<const std::byte> stream, std::span<std::byte> cluster);

}  // namespace coimg::qcow2
