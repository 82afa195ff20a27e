// Runs of table entries: clusters that lie one behind the other, or entries that are all the same.
#pragma once

#include <cstdint>
#include <span>

#include "block/util/endian.h"

namespace coimg::qcow2 {

/// How many of the first entries are `first`, `first` + step, `first` + 2 * step, ... in the bits of `mask`. What is
/// only looked at by metadata (status, check) spends its time here.
uint64_t count_run(std::span<const be64> entries, uint64_t first, uint64_t step, uint64_t mask);

}  // namespace coimg::qcow2
