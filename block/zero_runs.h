// Zeros in data that are copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "block/copy_plan.h"

namespace coimg {

/// Zeros are looked for in units of a page, the unit in which file systems keep holes.
inline constexpr uint64_t kZeroUnit = 4096;

/// The unit in which a target is written that likes `zero_alignment`: its clusters, at least a page.
uint64_t copy_unit(uint64_t zero_alignment);

struct ZeroRunRules {
  uint64_t unit = kZeroUnit;  ///< what is not zero takes whole units; power of two
  uint64_t enough = 0;        ///< zero runs of at least so many bytes count; 0: none does
  uint64_t end = 0;           ///< of the whole copy: its last unit may be shorter
};

/// Adds what `memory` holds, which stands at `offset`, to `runs`: as data, and as runs of zeros.
void append_data_runs(std::vector<CopyRun>& runs, uint64_t offset, std::span<const std::byte> memory,
                      const ZeroRunRules& rules);

}  // namespace coimg
