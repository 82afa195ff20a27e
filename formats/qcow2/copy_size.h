// How long the file of a copy becomes, to the byte: what will be written is gone through, and what that allocates.
//
// Format: qcow2, sections "Fresh layout", "Allocation search", "Bitmap table and data".
#pragma once

#include <cstdint>
#include <vector>

#include "block/node.h"
#include "block/util/offsets.h"
#include "block/util/result.h"
#include "coroutine/annotations.h"
#include "formats/qcow2/create.h"
#include "formats/qcow2/file_growth.h"

namespace coimg::qcow2 {

/// An image that is new at first, and grows by what is noted, in the order in which that is written.
/// Errors of all that notes something: EFBIG when the image would be too large for the format.
class CopySize {
 public:
  /// `plan` outlives this.
  explicit CopySize(const CreatePlan& plan);

  /// One write of data to where nothing is stored yet. `bytes` is not zero.
  Result<void> note_write(uint64_t offset, uint64_t bytes);
  /// A copy of `source`; see co_forecast_copy(), whose errors come back too.
  Result<void> note_copy(BlockNode& source, bool read_data) coroutine_fn;
  /// A copy of a disk of which every cluster holds data, with writes of `write_bytes`, whole clusters each.
  Result<void> note_full_disk(uint64_t write_bytes);
  /// How many steps note_full_disk() takes, each of some 20 nanoseconds.
  [[nodiscard]] uint64_t full_disk_steps(uint64_t write_bytes) const;
  /// Copies of the bitmaps of `source` that are not inconsistent, as convert makes them; closing the image stores them.
  /// Reads them; memory: a cluster. Errors: those of reading; EINVAL where one cannot be added to the image; EFBIG
  /// where they have so many bits that reading them would take long.
  Result<void> note_bitmaps(BlockNode& source) coroutine_fn;

  /// With a data file, which ends where the disk does.
  [[nodiscard]] uint64_t bytes() const {
    return growth_.file_bytes() + (geometry_.external_data() ? plan_.header.size : 0);
  }

 private:
  Result<void> place_tables(GuestOffset first, GuestOffset end);
  Result<void> place_data(GuestOffset first, GuestOffset end);
  Result<void> place_run(uint64_t bytes);
  Result<void> note_bitmap(BlockNode& source, const BitmapInfo& bitmap) coroutine_fn;
  [[nodiscard]] HostOffset preallocated_host(GuestOffset guest) const;
  [[nodiscard]] HostOffset stored_end(HostOffset host, GuestOffset guest) const;

  const CreatePlan& plan_;
  const Geometry geometry_;
  FileGrowth growth_;
  std::vector<bool> has_table_;  ///< by L1 index
};

}  // namespace coimg::qcow2
