// Bitmaps: loading, and keeping them true while the disk is changed and resized.
//
// Format: qcow2, sections "Persistent bitmaps: Bitmap table and data, Lifecycle, Other operations".
#include <fmt/format.h>

#include <algorithm>

#include "block/util/buffer.h"
#include "block/util/endian.h"
#include "block/util/math.h"
#include "block/warnings.h"
#include "formats/qcow2/bitmaps.h"
#include "formats/qcow2/ordered_reads.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {

/// The tables of a thousand bitmaps of the largest size at the default cluster size. Damaged directories may claim
/// more.

}  // namespace

Error inconsistent_bitmap(const std::string& name) {
  return Error(EINVAL, fmt::format("Bitmap '{}' is inconsistent and cannot be used", name))
      .with_hint("Try block-dirty-bitmap-remove to delete this bitmap from disk\n");
}

// --- loading ---------------------------------------------------------------------------------------------------------

Result<void> Bitmaps::load_directory_locked() {
  image_.lock_.assert_wrlocked();
  on_disk_ = COIMG_TRY(load_bitmap_directory(image_.file_, image_.header_));
  for (const BitmapEntry& entry : on_disk_) list_.emplace_back().entry = entry;
  return {};
}

Result<void> Bitmaps::prepare_for_writing() {
  for (Bitmap& bitmap : list_) {
    if (bitmap.entry.in_use) continue;
    const Result<void> loaded = load_table(bitmap);
    if (loaded.ok()) continue;
    if (loaded.error().errnum() != EINVAL) return loaded;
    emit_warning(fmt::format("{}: warning: {}; it is now considered inconsistent\n", program_invocation_short_name,
                             loaded.error().message()),
                 image_.filename_);
    bitmap.entry.in_use = true;
  }
  recording_changed();
  return {};
}

/// Reads the table, and makes the bits of a bitmap that is consistent. Errors: EINVAL for a damaged table, EFBIG for
/// more tables than are reasonable, and what reading gave.
Result<void> Bitmaps::load_table(Bitmap& bitmap) {
  if (bitmap.loaded) return {};
  const uint64_t bytes = uint64_t{bitmap.entry.table_entries} * sizeof(be64);
  if (bytes > kMaxBitmapTablesBytes - table_bytes_) return too_many_bitmap_tables();
  const uint64_t file_bytes = image_.file_.exact_length();
  const auto damaged = [&] {
    return Error(EINVAL, fmt::format("Could not read bitmap_table table from image for bitmap '{}': Invalid argument",
                                     bitmap.entry.name))
        .at("bitmap table", bitmap.entry.table_offset.v);
  };
  // What is not in the file would read as clean.
  if (!range_within(bitmap.entry.table_offset.v, bytes, file_bytes)) return damaged();
  std::vector<be64> stored(bitmap.entry.table_entries);
  COIMG_TRY(read_padded(image_.file_, bitmap.entry.table_offset, std::as_writable_bytes(std::span(stored)))
                .with_context("reading a bitmap table"));
  std::vector<BitmapTableEntry> table;
  table.reserve(stored.size());
  for (const be64& raw : stored) table.emplace_back(uint64_t{raw});
  const bool sound = std::ranges::all_of(
      table, [&](BitmapTableEntry entry) { return entry.valid(image_.geometry_) && entry.cluster().v < file_bytes; });
  if (!sound) return damaged();
  table_bytes_ += bytes;
  bitmap.stored_table = std::move(table);
  bitmap.loaded = true;
  if (bitmap.entry.in_use) return {};  // may be of a time when the disk had another size

  CoReadGuard guard(image_.lock_);  // the disk's size, also when a snapshot is shown
  bitmap.bits = BitmapBits(image_.header_.size, bitmap.entry.granularity_bits, image_.geometry_.cluster_size());
  bitmap.bits.set_stored(bitmap.stored_table);
  return {};
}

/// Reads a chunk of a loaded bitmap, as it is with its changes.
Result<void> Bitmaps::load_chunk(const Bitmap& bitmap, uint64_t chunk, std::span<std::byte> bits) {
  if (const HostOffset cluster = bitmap.bits.cluster_of(chunk); cluster.v != 0) {
    COIMG_TRY(
        read_padded(image_.file_, cluster, bits).with_context(fmt::format("reading bitmap '{}'", bitmap.entry.name)));
  }
  bitmap.bits.compose(chunk, bits);
  return {};
}

// --- recording -------------------------------------------------------------------------------------------------------

void Bitmaps::recording_changed() {
  recording_ =
      std::ranges::any_of(list_, [](const Bitmap& bitmap) { return bitmap.entry.automatic && !bitmap.entry.in_use; });
  marked_ = false;
}

Result<void> Bitmaps::record(uint64_t offset, uint64_t bytes) {
  if (!marked_) COIMG_TRY(mark_in_use(Marked::kRecording));
  for (Bitmap& bitmap : list_) {
    if (bitmap.entry.automatic && !bitmap.entry.in_use) bitmap.bits.set(offset, bytes);
  }
  return {};
}

/// Whether a bitmap on disk would be wrong after a change: one that is to record it, here or as the disk has it, and
/// one that is damaged.
bool Bitmaps::needs_mark(const BitmapEntry& stored, Marked which) const {
  if (which == Marked::kAll || stored.automatic) return true;
  const auto now = std::ranges::find(list_, stored.name, [](const Bitmap& bitmap) { return bitmap.entry.name; });
  return now != list_.end() && (now->entry.automatic || now->entry.in_use);
}

/// Sets flags in the directory, in place: each of them is in one sector, so that it is set or not. Durable when it
/// returns. Crash: any of the bitmaps are marked; none of them is wrong yet.
Result<void> Bitmaps::mark_in_use(Marked which) {
  CoWriteGuard guard(image_.lock_);
  if (marked_ && which == Marked::kRecording) return {};
  std::vector<BitmapEntry> directory = on_disk_;
  bool any = false;
  for (BitmapEntry& entry : directory) {
    if (entry.in_use || !needs_mark(entry, which)) continue;
    entry.in_use = any = true;
  }
  if (any) {
    COIMG_TRY(image_.check_bitmap_directory_locked());
    changed_ = true;
    const std::vector<std::byte> bytes = COIMG_TRY(encode_bitmap_directory(directory));
    COIMG_TRY(image_.file_.co_pwrite(image_.header_.bitmaps->directory_offset.v, bytes)
                  .with_context("marking bitmaps as in use"));
    COIMG_TRY(image_.file_.co_flush().with_context("marking bitmaps as in use"));
    on_disk_ = std::move(directory);
  }
  marked_ = true;
  return {};
}

// --- resizing --------------------------------------------------------------------------------------------------------

Result<void> Bitmaps::prepare_resize(uint64_t new_length) {
  if (list_.empty()) return {};
  for (const Bitmap& bitmap : list_) {
    if (bitmap.entry.in_use) return inconsistent_bitmap(bitmap.entry.name);
    if (new_length == 0) return Error(ENOTSUP, "Can't resize an image that has bitmaps to nothing");
    if (bitmap_data_bytes(new_length, bitmap.entry.granularity_bits) > kMaxBitmapBytes) {
      return Error(EINVAL, fmt::format("Bitmap '{}' doesn't satisfy the constraints: Too much space will be occupied "
                                       "by the bitmap. Use larger granularity",
                                       bitmap.entry.name));
    }
  }
  // What lies behind the end must not come back when the disk grows again.
  AlignedBuffer bits(image_.geometry_.cluster_size());
  for (Bitmap& bitmap : list_) {
    const uint64_t chunk = bitmap.bits.last_kept(new_length);
    if (bitmap.bits.known_clear(chunk)) continue;
    COIMG_TRY(load_chunk(bitmap, chunk, bits.span()));
    bitmap.bits.settle(chunk, bits.span());
  }
  COIMG_TRY(mark_in_use(Marked::kAll));
  changed_ = true;
  return {};
}

void Bitmaps::resize(uint64_t new_length) {
  for (Bitmap& bitmap : list_) bitmap.bits.resize(new_length);
}

void Bitmaps::distrust() {
  std::erase_if(list_, [](const Bitmap& bitmap) { return bitmap.entry.table_offset.v == 0; });  // were never stored
  for (Bitmap& bitmap : list_) bitmap.entry.in_use = true;
  recording_changed();
}

void Bitmaps::tables_moved(std::vector<BitmapEntry> directory) {
  for (const BitmapEntry& stored : directory) {  // those that have lost their table are not loaded
    const auto moved = std::ranges::find(list_, stored.name, [](const Bitmap& bitmap) { return bitmap.entry.name; });
    if (moved != list_.end() && !moved->loaded) moved->entry.table_offset = stored.table_offset;
  }
  on_disk_ = std::move(directory);
}

}  // namespace coimg::qcow2
