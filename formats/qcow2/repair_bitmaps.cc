// Repairer, bitmaps: what of a bitmap is lost counts as dirty, so that nobody who copies what has changed misses any of
// it. Other programs take it for clean.
//
// Entries are replaced in the table. A table that is lost is made anew in other clusters, once all else is sound, and
// then entered in the directory in place.
//
// Format: qcow2, section "Persistent bitmaps: Bitmap table and data".
#include <fmt/format.h>

#include <algorithm>

#include "block/util/math.h"
#include "formats/qcow2/bitmap.h"
#include "formats/qcow2/ordered_reads.h"
#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/repair.h"

namespace coimg::qcow2 {
namespace {

/// Of new tables. Damaged directories may claim more, which then stays as it is.
constexpr uint64_t kMaxNewTablesBytes = 64 * kMiB;

}  // namespace

Result<void> Repairer::mend_bitmap_tables() {
  for (const DamagedBitmapTable& damaged : checker_->damaged_bitmap_tables()) {
    std::vector<be64> table(damaged.entries);
    const std::span<std::byte> bytes = std::as_writable_bytes(std::span(table));
    if (!checker_->is_used_only_for(damaged.offset, bytes.size(), damaged.times)) {
      report(fmt::format("ERROR bitmap table at offset {:#x} overlaps something else; not repaired", damaged.offset.v));
      continue;
    }
    COIMG_TRY(read_padded(image_.file_, damaged.offset, bytes).with_context("reading a bitmap table"));
    for (be64& entry : table) {
      if (!checker_->is_sound(BitmapTableEntry(entry))) entry = BitmapTableEntry::all_ones().raw();
    }
    changed_ = true;
    COIMG_TRY(image_.file_.co_pwrite(damaged.offset.v, bytes).with_context("storing a repaired bitmap table"));
    checker_->result().corruptions -= damaged.findings;
    checker_->result().corruptions_fixed += damaged.findings;
  }
  return {};
}

Result<void> Repairer::replace_lost_bitmap_tables() {
  image_.lock_.assert_wrlocked();
  COIMG_TRY(forget_caches());
  Header& header = image_.header_;
  const BitmapsExtension place = *header.bitmaps;
  const bool unshared = COIMG_TRY(is_only_reference(place.directory_offset, place.directory_bytes));
  if (!unshared) {
    report("ERROR the bitmap directory overlaps something else; not repaired");
    return {};
  }
  std::vector<BitmapEntry> directory = COIMG_TRY(load_bitmap_directory(image_.file_, header));
  const uint64_t file_bytes = image_.file_.exact_length();  // before anything is added to it
  uint64_t replaced = 0, written = 0;
  for (BitmapEntry& bitmap : directory) {
    const uint64_t bytes = uint64_t{bitmap.table_entries} * sizeof(be64);
    if (range_within(bitmap.table_offset.v, bytes, file_bytes)) continue;
    if (written + bytes > kMaxNewTablesBytes) {
      report(fmt::format("ERROR the lost tables of bitmaps take more than {} bytes; not all are replaced",
                         kMaxNewTablesBytes));
      break;
    }
    changed_ = true;
    bitmap.table_offset = COIMG_TRY(write_full_bitmap_table(bitmap.table_entries));
    written += bytes;
    ++replaced;
  }
  const std::vector<std::byte> stored = COIMG_TRY(encode_bitmap_directory(directory));
  COIMG_TRY(image_.flush_locked());  // refcounts come before references
  COIMG_TRY(
      image_.file_.co_pwrite(place.directory_offset.v, stored).with_context("storing the repaired bitmap directory"));
  COIMG_TRY(image_.file_.co_flush().with_context("flushing the repaired bitmap directory"));
  image_.bitmaps_.tables_moved(directory);
  checker_->result().corruptions -= replaced;
  checker_->result().corruptions_fixed += replaced;
  return {};
}

/// Whether each cluster of the range has one reference, as stored.
Result<bool> Repairer::is_only_reference(HostOffset offset, uint64_t bytes) {
  image_.lock_.assert_wrlocked();
  const HostCluster first = image_.geometry_.host_cluster(offset);
  for (uint64_t i = 0; i < image_.geometry_.clusters_for(bytes); ++i) {
    if (COIMG_TRY(image_.refcounts_->refcount(first + i)) != 1) return false;
  }
  return true;
}

/// A new table that says that all is dirty. Crash: a leak.
Result<HostOffset> Repairer::write_full_bitmap_table(uint32_t entries) {
  image_.lock_.assert_wrlocked();
  const std::vector<be64> table(entries, be64(BitmapTableEntry::all_ones().raw()));
  const auto bytes = std::as_bytes(std::span(table));
  const ClusterCount clusters(image_.geometry_.clusters_for(bytes.size()));
  const HostOffset offset = image_.geometry_.host_offset(COIMG_TRY(image_.refcounts_->allocate(clusters)));
  COIMG_TRY(image_.file_.co_pwrite(offset.v, bytes).with_context("writing a bitmap table"));
  return offset;
}

}  // namespace coimg::qcow2
