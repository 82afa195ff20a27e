// The table of internal snapshots that info (and snapshot -l) shows.
#pragma once

#include <string>
#include <vector>

#include "block/driver.h"

namespace coimg {

/// A heading and a line a snapshot. Dates are in the local time zone; a long tag pushes its line's columns to the
/// right.
std::string render_snapshot_table(const std::vector<SnapshotInfo>& snapshots);

}  // namespace coimg
