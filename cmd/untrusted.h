// Bounds for work on images that may be hostile (--untrusted).
#pragma once

#include <cstdint>

#include "block/util/result.h"
#include "cmd/command.h"

namespace coimg {

/// Bounds that the kernel enforces.
struct ResourceLimits {
  uint64_t address_space_bytes;
  uint64_t cpu_seconds;
  uint64_t file_bytes;  ///< of each file that is written, standard output included; 0: no bound of ours
};

/// The figures of coimg(1): many times what the work needs for a sound image.
ResourceLimits limits_for_untrusted(CommandWork work);

/// Lowers the limits of this process, and those of core dumps to nothing; lower ones stay. Errors: the host's.
Result<void> limit_resources(const ResourceLimits& limits);

}  // namespace coimg
