// Bitmaps: the persistent dirty bitmaps of an open image.
//
// bitmap_record.cc loads them and records changes of the disk; bitmap_store.cc writes them back; bitmap_change.cc has
// the operations that users ask for. bitmap.h has their form on disk, bitmap_bits.h their bits in memory.
//
// On disk a bitmap is complete, or marked as in use. Before the first change of the disk that it has to record, it is
// marked; when the image is closed, all that changed is written to new clusters, and one write of the header switches
// to a directory without marks. So a crash leaves a bitmap that is true, or one that says it is not. What is not asked
// to record (a disabled bitmap) stays as it is.
//
// Format: qcow2, section "Persistent bitmaps".
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block/driver.h"
#include "block/util/result.h"
#include "formats/qcow2/bitmap.h"
#include "formats/qcow2/bitmap_bits.h"
#include "formats/qcow2/header.h"

namespace coimg::qcow2 {

class Qcow2;

/// EINVAL, for what needs a bitmap that is true.
Error inconsistent_bitmap(const std::string& name);

/// A bitmap in memory.
struct Bitmap {
  /// Name, granularity, whether it records; where it is stored, if it is. in_use: it is inconsistent, so that nothing
  /// can be done with it but to remove it.
  BitmapEntry entry;
  bool loaded = false;  ///< `stored_table` is valid, and `bits` if the bitmap is consistent
  BitmapBits bits;
  std::vector<BitmapTableEntry> stored_table;  ///< as it is on disk, to be freed when it is replaced
};

/// All bitmaps of one image.
///
/// Locks: the list changes only while nothing is in flight in the image (Qcow2::in_flight_ held exclusively for all of
/// it); bits are set by whoever has the range in flight. Neither happens across a yield. What is written to the file is
/// written under Qcow2::lock_, which the functions take that are not named _locked.
class Bitmaps {
 public:
  explicit Bitmaps(Qcow2& image) : image_(image) {}

  // --- bitmap_record.cc
  /// Reads the directory. Errors: EINVAL for one that is malformed. Locks: Qcow2::lock_ held exclusively.
  Result<void> load_directory_locked() coroutine_fn;
  /// Reads the bitmap tables, so that the image can be written. One that is damaged makes its bitmap inconsistent, with
  /// a warning. Errors: EFBIG for too many.
  Result<void> prepare_for_writing() coroutine_fn;
  /// To be called with the range in flight, before it changes. The first time, marks what records as in use, durably.
  /// Errors: what writing the marks gave; the range must not be changed then.
  Result<void> note_change(uint64_t offset, uint64_t bytes) coroutine_fn {
    if (!recording_) [[likely]]
      return {};
    return record(offset, bytes);
  }
  /// Around a change of the disk's size: refuses what cannot be done and marks all bitmaps as in use, then adapts them.
  Result<void> prepare_resize(uint64_t new_length) coroutine_fn;
  void resize(uint64_t new_length);
  /// None of them may be taken for true any more: those that are marked stay so. After an error that leaves the disk's
  /// size in doubt.
  void distrust();

  /// A repair has given bitmaps other tables: `directory` is what is stored now.
  void tables_moved(std::vector<BitmapEntry> directory);

  // --- bitmap_store.cc
  /// Writes back what has changed, if anything has, and takes the marks away. All else that is dirty is flushed before.
  /// Errors: what the file says; the marks stay then, and what was allocated is freed.
  /// Crash: the bitmaps are as they were stored the last time, marked, or as they are now; leaks at most. The first
  /// bitmap appears and the last one goes by a rewrite of the header; in between there is none.
  Result<void> store_locked() coroutine_fn;

  // --- bitmap_change.cc; contracts in block/driver.h. Locks: the caller has everything in flight.
  Result<void> add(const BitmapInfo& info) coroutine_fn;
  Result<void> remove(const std::string& name) coroutine_fn;
  Result<void> clear(const std::string& name) coroutine_fn;
  Result<void> set_recording(const std::string& name, bool recording) coroutine_fn;
  Result<void> merge(const std::string& name, BlockDriver& source, const std::string& source_name) coroutine_fn;
  Result<void> visit(const std::string& name, const DirtyVisitor& visitor) coroutine_fn;

  [[nodiscard]] const std::vector<Bitmap>& list() const { return list_; }
  [[nodiscard]] bool empty() const { return list_.empty(); }

 private:
  // bitmap_record.cc
  Result<void> record(uint64_t offset, uint64_t bytes) coroutine_fn;
  enum class Marked { kRecording, kAll };
  Result<void> mark_in_use(Marked which) coroutine_fn;
  [[nodiscard]] bool needs_mark(const BitmapEntry& stored, Marked which) const;
  Result<void> load_table(Bitmap& bitmap) coroutine_fn;
  Result<void> load_chunk(const Bitmap& bitmap, uint64_t chunk, std::span<std::byte> bits) coroutine_fn;
  void recording_changed();

  // bitmap_store.cc
  struct Storing;
  Result<void> write_all_locked(Storing& storing) coroutine_fn;
  Result<BitmapEntry> write_bitmap_locked(const Bitmap& bitmap, Storing& storing) coroutine_fn;
  Result<void> write_chunks_locked(const Bitmap& bitmap, std::vector<BitmapTableEntry>& table, Storing& storing)
      coroutine_fn;
  Result<HostOffset> allocate_locked(uint64_t clusters, Storing& storing) coroutine_fn;
  Result<HostOffset> write_table_locked(std::span<const std::byte> table, std::string_view what, Storing& storing)
      coroutine_fn;
  Result<void> switch_header_locked(const std::optional<BitmapsExtension>& extension) coroutine_fn;
  Result<bool> try_patch_header_locked(const BitmapsExtension& extension) coroutine_fn;
  void finish_locked(Storing& storing) coroutine_fn;
  void free_locked(std::vector<HostCluster> clusters) coroutine_fn;
  void collect_clusters(HostOffset offset, uint64_t bytes, std::vector<HostCluster>& clusters) const;
  void collect_clusters(const Bitmap& bitmap, std::span<const BitmapTableEntry> kept,
                        std::vector<HostCluster>& clusters) const;

  // bitmap_change.cc
  [[nodiscard]] Bitmap* find(const std::string& name);
  Result<Bitmap*> find_usable(const std::string& name);

  Qcow2& image_;
  std::vector<Bitmap> list_;
  std::vector<BitmapEntry> on_disk_;  ///< the directory as it is stored
  /// Clusters of removed bitmaps: free when the directory no longer has them.
  std::vector<HostCluster> removed_;
  uint64_t table_bytes_ = 0;  ///< read so far
  bool changed_ = false;      ///< the directory on disk is not what it should be when the image is closed
  bool recording_ = false;    ///< a bitmap records
  bool marked_ = false;       ///< all that record are marked
};

}  // namespace coimg::qcow2
