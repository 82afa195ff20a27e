// What a copy allocates. It writes in guest order, whatever is read first, so its layout can be told beforehand; see
// block/placement.h. The allocations are those of Qcow2::plan_write_locked() for clusters that nothing maps yet, and
// then those of Bitmaps::store_locked() for bitmaps that have never been stored.
#include "formats/qcow2/copy_size.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "block/copy_forecast.h"
#include "block/util/math.h"
#include "formats/qcow2/bitmap.h"

namespace coimg::qcow2 {

namespace {

// Of the bits of all bitmaps; reading so many takes seconds. An image may claim thousands of large ones without having
// them, and here nobody has asked for them.
constexpr uint64_t kMaxBitmapsRead = 4 * kGiB;

/// Counts the clusters of a bitmap's bits that have to be stored, as they are neither all zeros nor all ones. It is
/// told of the dirty ranges in ascending order, each of whole granules.
class StoredBits {
 public:
  StoredBits(uint64_t disk_bytes, uint64_t granularity, uint64_t cluster_size)
      : disk_bytes_(disk_bytes), granularity_(granularity), bits_per_cluster_(cluster_size * 8) {}

  /// What lies behind the disk's end has no bits.
  void add(uint64_t offset, uint64_t bytes) {
    if (offset >= disk_bytes_) return;
    const uint64_t end = div_ceil(offset + std::min(bytes, disk_bytes_ - offset), granularity_);
    for (uint64_t bit = offset / granularity_; bit < end;) {
      if (bit / bits_per_cluster_ != cluster_) finish_cluster();
      cluster_ = bit / bits_per_cluster_;
      const uint64_t count = std::min(end - bit, bits_per_cluster_ - bit % bits_per_cluster_);
      ones_ += count;
      bit += count;
    }
  }

  [[nodiscard]] uint64_t finish() {
    finish_cluster();
    return stored_;
  }

 private:
  /// The disk's last cluster of bits has zeros behind the end, so it is all ones only where it is full.
  void finish_cluster() {
    if (ones_ != 0 && ones_ != bits_per_cluster_) ++stored_;
    ones_ = 0;
  }

  const uint64_t disk_bytes_, granularity_, bits_per_cluster_;
  uint64_t cluster_ = 0, ones_ = 0;  ///< the one that is being told of, and how many ones it has so far
  uint64_t stored_ = 0;
};

uint8_t granularity_bits(const BitmapInfo& bitmap) {
  return static_cast<uint8_t>(std::countr_zero(bitmap.granularity));
}

}  // namespace

CopySize::CopySize(const CreatePlan& plan)
    : plan_(plan),
      geometry_(plan.header.geometry()),
      growth_(geometry_, plan.layout),
      has_table_(plan.layout.l1_entries, plan.preallocated) {}

// --- the disk --------------------------------------------------------------------------------------------------------

Result<void> CopySize::note_write(uint64_t offset, uint64_t bytes) {
  const GuestOffset first(geometry_.cluster_down(offset)), end(geometry_.cluster_up(offset + bytes));
  if (plan_.preallocated) {
    if (!geometry_.external_data()) growth_.extend_to(stored_end(preallocated_host(end - 1), end - 1));
    return {};
  }
  COIMG_TRY(place_tables(first, end));
  return geometry_.external_data() ? Result<void>() : place_data(first, end);
}

Result<void> CopySize::note_copy(BlockNode& source, bool read_data) {
  return co_forecast_copy(source, geometry_.cluster_size(), read_data,
                          [this](uint64_t offset, uint64_t bytes) { return note_write(offset, bytes); });
}

Result<void> CopySize::note_full_disk(uint64_t write_bytes) {
  const uint64_t size = plan_.header.size;
  // Where no data are placed it does not matter how they are cut.
  if (plan_.preallocated || geometry_.external_data()) write_bytes = std::max(size, write_bytes);
  for (uint64_t offset = 0; offset < size; offset += write_bytes) {
    COIMG_TRY(note_write(offset, std::min(write_bytes, size - offset)));
  }
  return {};
}

uint64_t CopySize::full_disk_steps(uint64_t write_bytes) const {
  if (plan_.preallocated) return 1;
  const uint64_t tables = has_table_.size();
  if (geometry_.external_data()) return tables;
  const uint64_t blocks = geometry_.clusters_for(plan_.header.size) / geometry_.refcounts_per_block();
  return div_ceil(plan_.header.size, write_bytes) + tables + blocks;
}

Result<void> CopySize::place_tables(GuestOffset first, GuestOffset end) {
  for (uint64_t index = geometry_.l1_index(first); index <= geometry_.l1_index(end - 1); ++index) {
    if (has_table_[index]) continue;
    COIMG_TRY(place_run(geometry_.cluster_size()));
    has_table_[index] = true;
  }
  return {};
}

/// One write's clusters, each run behind the one before where that is free.
Result<void> CopySize::place_data(GuestOffset first, GuestOffset end) {
  HostCluster behind;
  for (uint64_t left = (end - first) >> geometry_.cluster_bits(); left > 0;) {
    const ClusterCount wanted(std::min(left, geometry_.refcounts_per_block()));
    ClusterCount taken;
    if (behind.v != 0) taken = COIMG_TRY(growth_.allocate_at(behind, wanted));
    if (taken.v == 0) {
      behind = COIMG_TRY(growth_.allocate(wanted));
      taken = wanted;
    }
    behind += taken.v;
    left -= taken.v;
    const GuestOffset guest = end - (left << geometry_.cluster_bits());  // where the run ends
    growth_.extend_to(stored_end(geometry_.host_offset(behind - 1), guest - 1));
  }
  return {};
}

HostOffset CopySize::preallocated_host(GuestOffset guest) const {
  const uint64_t index = geometry_.l2_index(guest);
  return plan_.layout.data[geometry_.l1_index(guest)] + (index << geometry_.cluster_bits());
}

/// Where storing the cluster of `guest`, which lies at `host`, ends: of the disk's last one not all subclusters are.
HostOffset CopySize::stored_end(HostOffset host, GuestOffset guest) const {
  const uint64_t start = geometry_.cluster_down(guest.v);
  if (!geometry_.extended_l2()) return host + geometry_.cluster_size();
  const uint64_t on_disk = std::min(plan_.header.size - start, geometry_.cluster_size());
  return host + align_up(on_disk, geometry_.state_unit());
}

// --- bitmaps ---------------------------------------------------------------------------------------------------------

Result<void> CopySize::note_bitmaps(BlockNode& source) {
  std::vector<BitmapInfo> bitmaps = source.driver().bitmaps();
  std::erase_if(bitmaps, [](const BitmapInfo& bitmap) { return bitmap.inconsistent; });
  if (bitmaps.empty()) return {};
  uint64_t bits_bytes = 0;
  for (const BitmapInfo& bitmap : bitmaps) bits_bytes += bitmap_data_bytes(plan_.header.size, granularity_bits(bitmap));
  if (bits_bytes > kMaxBitmapsRead) return Error(EFBIG, "they have more than 4 GiB of bits");
  std::vector<BitmapEntry> directory;
  for (const BitmapInfo& bitmap : bitmaps) {
    COIMG_TRY(note_bitmap(source, bitmap));
    directory.push_back({.name = bitmap.name});
  }
  return place_run(COIMG_TRY(encode_bitmap_directory(directory)).size());
}

/// Its data, in runs as long as they are written at once, and then its table.
Result<void> CopySize::note_bitmap(BlockNode& source, const BitmapInfo& bitmap) {
  COIMG_TRY(check_bitmap_size(plan_.header.size, granularity_bits(bitmap))
                .with_context(fmt::format("adding bitmap '{}'", bitmap.name)));
  StoredBits bits(plan_.header.size, bitmap.granularity, geometry_.cluster_size());
  COIMG_TRY(source.co_visit_bitmap(bitmap.name, [&](uint64_t offset, uint64_t bytes) { bits.add(offset, bytes); }));
  for (uint64_t left = bits.finish(); left > 0;) {
    const uint64_t count = std::min(left, bitmap_clusters_at_once(geometry_));
    COIMG_TRY(place_run(count << geometry_.cluster_bits()));
    left -= count;
  }
  const uint64_t entries = geometry_.clusters_for(bitmap_data_bytes(plan_.header.size, granularity_bits(bitmap)));
  return place_run(entries * sizeof(be64));
}

/// May end in the middle of a cluster, and the file with it.
Result<void> CopySize::place_run(uint64_t bytes) {
  const HostCluster first = COIMG_TRY(growth_.allocate(ClusterCount(geometry_.clusters_for(bytes))));
  growth_.extend_to(geometry_.host_offset(first) + bytes);
  return {};
}

}  // namespace coimg::qcow2
