// Bitmaps: writing them back.
//
// Clusters of bits that have not changed stay where they are; what has changed, each table with a change, and the
// directory go to new clusters. Then the header refers to the new directory, and the old clusters are freed.
//
// Format: qcow2, sections "Persistent bitmaps: Lifecycle", "Write path and crash safety: Dependencies".
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "block/util/buffer.h"
#include "block/util/endian.h"
#include "block/util/math.h"
#include "formats/qcow2/bitmaps.h"
#include "formats/qcow2/ordered_reads.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {

bool is_all_ones(std::span<const std::byte> bits) {
  return std::ranges::all_of(bits, [](std::byte byte) { return byte == std::byte{0xff}; });
}

}  // namespace

/// What is being made, and what it replaces.
struct Bitmaps::Storing {
  std::optional<BitmapsExtension> replaced;
  std::optional<BitmapsExtension> extension = {};  ///< nothing when no bitmap is left
  std::vector<BitmapEntry> directory = {};
  std::vector<std::vector<BitmapTableEntry>> tables = {};  ///< of each bitmap; empty for one that stays where it is
  std::vector<HostCluster> allocated = {};
};

Result<void> Bitmaps::store_locked() {
  image_.lock_.assert_wrlocked();
  if (!changed_) return {};
  Storing storing{.replaced = image_.header_.bitmaps};
  Result<void> written = write_all_locked(storing);
  if (written.ok()) written = image_.flush_locked();
  if (!written.ok()) {
    free_locked(std::move(storing.allocated));
    return std::move(written).with_context("storing the bitmaps");
  }
  // After an error the header may refer to the old directory or the new one. Neither is wrong, so both are kept.
  COIMG_TRY(switch_header_locked(storing.extension).with_context("storing the bitmaps"));
  finish_locked(storing);
  return image_.flush_locked();
}

Result<void> Bitmaps::write_all_locked(Storing& storing) {
  for (const Bitmap& bitmap : list_) {
    storing.tables.emplace_back();
    storing.directory.push_back(COIMG_TRY(write_bitmap_locked(bitmap, storing)));
  }
  if (storing.directory.empty()) return {};
  const std::vector<std::byte> directory = COIMG_TRY(encode_bitmap_directory(storing.directory));
  const HostOffset offset = COIMG_TRY(write_table_locked(directory, "bitmap directory", storing));
  storing.extension = {.count = static_cast<uint32_t>(storing.directory.size()),
                       .directory_bytes = directory.size(),
                       .directory_offset = offset};
  return {};
}

/// The directory's entry for the bitmap, whose bits and table are stored.
Result<BitmapEntry> Bitmaps::write_bitmap_locked(const Bitmap& bitmap, Storing& storing) {
  BitmapEntry entry = bitmap.entry;
  if (entry.in_use || !bitmap.bits.changed()) return entry;
  std::vector<BitmapTableEntry>& table = storing.tables.back();
  table = bitmap.bits.table();
  COIMG_TRY(write_chunks_locked(bitmap, table, storing));
  std::vector<be64> stored;
  stored.reserve(table.size());
  for (const BitmapTableEntry cluster : table) stored.emplace_back(cluster.raw());
  entry.table_offset = COIMG_TRY(write_table_locked(std::as_bytes(std::span(stored)), "bitmap table", storing));
  entry.table_entries = static_cast<uint32_t>(table.size());
  return entry;
}

/// Writes the chunks that have changed, many at a time, and enters them in the table.
Result<void> Bitmaps::write_chunks_locked(const Bitmap& bitmap, std::vector<BitmapTableEntry>& table,
                                          Storing& storing) {
  const uint64_t chunk_bytes = bitmap.bits.chunk_bytes();
  const uint64_t most = bitmap_clusters_at_once(image_.geometry_);
  AlignedBuffer batch;
  std::vector<uint64_t> members;
  const auto write_batch = [&]() coroutine_fn -> Result<void> {
    if (members.empty()) return {};
    const HostOffset offset = COIMG_TRY(allocate_locked(members.size(), storing));
    COIMG_TRY(image_.file_.co_pwrite(offset.v, batch.span().first(members.size() * chunk_bytes))
                  .with_context(fmt::format("writing bitmap '{}'", bitmap.entry.name)));
    for (size_t i = 0; i < members.size(); ++i) {
      table[members[i]] = BitmapTableEntry::stored(offset + i * chunk_bytes);
    }
    members.clear();
    return {};
  };

  const std::vector<uint64_t> changed = bitmap.bits.changed_chunks();
  batch = AlignedBuffer(std::min<uint64_t>(most, changed.size()) * chunk_bytes);
  for (const uint64_t chunk : changed) {
    const auto bits = batch.span().subspan(members.size() * chunk_bytes, chunk_bytes);
    COIMG_TRY(load_chunk(bitmap, chunk, bits));
    if (is_zero(bits)) {
      table[chunk] = BitmapTableEntry();
    } else if (is_all_ones(bits)) {
      table[chunk] = BitmapTableEntry::all_ones();
    } else {
      members.push_back(chunk);
    }
    if (members.size() == most) COIMG_TRY(write_batch());
  }
  return write_batch();
}

Result<HostOffset> Bitmaps::allocate_locked(uint64_t clusters, Storing& storing) {
  image_.lock_.assert_wrlocked();
  const HostCluster first = COIMG_TRY(image_.refcounts_->allocate(ClusterCount(clusters)));
  const HostOffset offset = image_.geometry_.host_offset(first);
  collect_clusters(offset, clusters << image_.geometry_.cluster_bits(), storing.allocated);
  COIMG_TRY(image_.check_overlap_locked(offset, clusters << image_.geometry_.cluster_bits()));
  return offset;
}

/// What follows the table in its last cluster is never looked at, so it is not written.
Result<HostOffset> Bitmaps::write_table_locked(std::span<const std::byte> table, std::string_view what,
                                               Storing& storing) {
  const HostOffset offset = COIMG_TRY(allocate_locked(image_.geometry_.clusters_for(table.size()), storing));
  COIMG_TRY(image_.file_.co_pwrite(offset.v, table).with_context(fmt::format("writing a {}", what)));
  return offset;
}

// --- the header ------------------------------------------------------------------------------------------------------

/// Makes the header refer to another directory, or to none. Durable when it returns. The extension's data are replaced
/// by one write if they are in one sector; else, and when the extension comes or goes, it is invalid meanwhile.
Result<void> Bitmaps::switch_header_locked(const std::optional<BitmapsExtension>& extension) {
  image_.lock_.assert_wrlocked();
  Header& header = image_.header_;
  if (header.bitmaps && extension && COIMG_TRY(try_patch_header_locked(*extension))) return {};

  const uint64_t without = header.autoclear_features & ~uint64_t{kBitmapsValid};
  if (header.bitmaps) COIMG_TRY(image_.store_autoclear_features_locked(without));
  const std::optional<BitmapsExtension> before = std::exchange(header.bitmaps, extension);
  const Result<void> rewritten = image_.rewrite_header_locked();
  if (!rewritten.ok()) {
    header.bitmaps = before;
    return rewritten;
  }
  return extension ? image_.store_autoclear_features_locked(without | kBitmapsValid) : Result<void>();
}

/// Returns whether it could be done.
Result<bool> Bitmaps::try_patch_header_locked(const BitmapsExtension& extension) {
  image_.lock_.assert_wrlocked();
  AlignedBuffer cluster(image_.geometry_.cluster_size());
  COIMG_TRY(read_padded(image_.file_, HostOffset(0), cluster.span()).with_context("reading the header"));
  const std::optional<uint64_t> place = find_bitmaps_extension(cluster.span());
  const std::vector<std::byte> data = encode_bitmaps_extension(extension);
  if (!place || *place / kSectorSize != (*place + data.size() - 1) / kSectorSize) return false;
  COIMG_TRY(image_.file_.co_pwrite(*place, data).with_context("writing the header"));
  COIMG_TRY(image_.file_.co_flush().with_context("flushing the header"));
  image_.header_.bitmaps = extension;
  return true;
}

// --- afterwards ------------------------------------------------------------------------------------------------------

/// What was stored is what counts now; what it replaced is freed.
void Bitmaps::finish_locked(Storing& storing) {
  std::vector<HostCluster> replaced = std::exchange(removed_, {});
  for (size_t i = 0; i < list_.size(); ++i) {
    Bitmap& bitmap = list_[i];
    std::vector<BitmapTableEntry>& table = storing.tables[i];
    if (table.empty()) continue;
    collect_clusters(bitmap, table, replaced);
    bitmap.entry = storing.directory[i];
    bitmap.stored_table = table;
    bitmap.bits.set_stored(std::move(table));
  }
  if (const auto& old = storing.replaced) {
    image_.note_metadata(old->directory_offset, old->directory_bytes, false);
    collect_clusters(old->directory_offset, old->directory_bytes, replaced);
  }
  if (const auto& made = storing.extension) {
    image_.note_metadata(made->directory_offset, made->directory_bytes, true);
  }
  on_disk_ = std::move(storing.directory);
  changed_ = false;
  recording_changed();
  free_locked(std::move(replaced));
}

/// Frees each cluster once.
void Bitmaps::free_locked(std::vector<HostCluster> clusters) {
  std::ranges::sort(clusters);
  for (size_t i = 0; i < clusters.size();) {
    const HostCluster first = clusters[i];
    HostCluster end = first + 1;
    for (++i; i < clusters.size() && clusters[i] <= end; ++i) end = clusters[i] + 1;
    image_.refcounts_->free_best_effort(first, ClusterCount(end - first));
  }
}

void Bitmaps::collect_clusters(HostOffset offset, uint64_t bytes, std::vector<HostCluster>& clusters) const {
  const HostCluster first = image_.geometry_.host_cluster(offset);
  for (uint64_t i = 0; i < image_.geometry_.clusters_for(bytes); ++i) clusters.push_back(first + i);
}

/// Adds what a bitmap occupies on disk, but for the clusters that a new table has in the same place. A table that
/// cannot be trusted is left alone, as what it refers to may be somebody else's: check finds what is leaked.
void Bitmaps::collect_clusters(const Bitmap& bitmap, std::span<const BitmapTableEntry> kept,
                               std::vector<HostCluster>& clusters) const {
  if (!bitmap.loaded || bitmap.entry.table_offset.v == 0) return;
  const std::vector<BitmapTableEntry>& table = bitmap.stored_table;
  collect_clusters(bitmap.entry.table_offset, table.size() * sizeof(be64), clusters);
  for (size_t i = 0; i < table.size(); ++i) {
    const HostOffset cluster = table[i].cluster();
    if (cluster.v == 0 || (i < kept.size() && kept[i].cluster() == cluster)) continue;
    clusters.push_back(image_.geometry_.host_cluster(cluster));
  }
}

}  // namespace coimg::qcow2
