// The snapshot table: reading and encoding it.
//
// Format: qcow2, section "Internal snapshots", "Table entry".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "block/node.h"
#include "formats/qcow2/format.h"
#include "formats/qcow2/header.h"

namespace coimg::qcow2 {

struct Snapshot {
  HostOffset l1_table_offset = {};
  uint32_t l1_size = 0;
  std::string id = {}, name = {};
  uint32_t date_sec = 0, date_nsec = 0;
  uint64_t vm_clock_ns = 0;
  uint64_t vm_state_bytes = 0;
  uint64_t disk_size = 0;
  uint64_t icount = ~uint64_t{0};
  uint32_t extra_bytes = 0;                   ///< as stored; check wants at least 16 in version 3
  std::vector<std::byte> unknown_extra = {};  ///< behind the fields that this program knows; kept
};

/// Extra data that this program writes: VM state size, disk size and instruction count.
inline constexpr uint32_t kKnownSnapshotExtraBytes = 24;

struct SnapshotTable {
  std::vector<Snapshot> snapshots;
  uint64_t bytes = 0;        ///< from the table's start to the end of the last name that was read
  uint32_t overhanging = 0;  ///< entries that were left out, as there are too many or the table is too long
};

/// What becomes of entries that break a limit.
enum class OversizedSnapshots {
  kRefuse,
  kDiscard,  ///< for check: extra data are cut, entries behind a limit left out
};

/// Whether the stored entry has more extra data than is allowed.
inline bool has_too_much_extra(const Snapshot& snapshot) { return snapshot.extra_bytes > kMaxSnapshotExtraBytes; }

/// Reads and validates the table. Errors: EINVAL, EFBIG for a table that breaks a limit, naming it.
Result<SnapshotTable> load_snapshot_table(BlockNode& file, const Header& header,
                                          OversizedSnapshots oversized = OversizedSnapshots::kRefuse) coroutine_fn;

/// The table as it is stored; every entry gets all the fields that this program knows. Errors: EFBIG.
Result<std::vector<std::byte>> encode_snapshot_table(std::span<const Snapshot> snapshots);

/// Bytes of the table that these entries were read from.
uint64_t stored_table_bytes(std::span<const Snapshot> snapshots);

}  // namespace coimg::qcow2
