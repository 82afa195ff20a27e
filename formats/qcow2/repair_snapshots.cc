// Repairer, snapshot table: gives each entry the extra data that version 3 requires.
//
// The completed table is longer, so it goes to new clusters; one write of the header switches to it.
//
// Format: qcow2, section "Internal snapshots: Table entry".
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "formats/qcow2/ordered_reads.h"
#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/repair.h"

namespace coimg::qcow2 {
namespace {

constexpr size_t kFixedBytes = 40;
constexpr size_t kIdLengthAt = 12, kNameLengthAt = 14, kVmStateBytesAt = 32, kExtraLengthAt = 36;

/// What version 3 requires: VM state size and disk size.
constexpr size_t kRequiredExtraBytes = 16;

/// What a completed entry gets: also the instruction count.
struct ExtraData {
  be64 vm_state_bytes, disk_bytes, icount;
};
static_assert(sizeof(ExtraData) == 24);

template <typename T>
T load_at(std::span<const std::byte> entry, size_t offset) {
  T value;
  std::memcpy(static_cast<void*>(&value), entry.data() + offset, sizeof value);
  return value;
}

void append(std::vector<std::byte>& table, std::span<const std::byte> bytes) {
  table.insert(table.end(), bytes.begin(), bytes.end());
}

/// The table with short entries completed; nothing when `old` does not hold `count` entries.
std::optional<std::vector<std::byte>> complete_entries(std::span<const std::byte> old, size_t count,
                                                       uint64_t disk_bytes) {
  std::vector<std::byte> table;
  size_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    at = align_up(at, 8);
    table.resize(align_up(table.size(), 8));
    if (!range_within(at, kFixedBytes, old.size())) return std::nullopt;
    const std::span<const std::byte> entry = old.subspan(at);
    const uint32_t extra_bytes = load_at<be32>(entry, kExtraLengthAt);
    const size_t name_bytes = size_t{load_at<be16>(entry, kIdLengthAt)} + load_at<be16>(entry, kNameLengthAt);
    if (!range_within(kFixedBytes, uint64_t{extra_bytes} + name_bytes, entry.size())) return std::nullopt;

    const size_t fixed_at = table.size();
    append(table, entry.first(kFixedBytes));
    if (extra_bytes >= kRequiredExtraBytes) {
      append(table, entry.subspan(kFixedBytes, extra_bytes));
    } else {
      ExtraData extra;
      extra.vm_state_bytes = uint64_t{load_at<be32>(entry, kVmStateBytesAt)};
      if (extra_bytes >= 8) extra.vm_state_bytes = load_at<be64>(entry, kFixedBytes);
      extra.disk_bytes = disk_bytes;
      extra.icount = ~uint64_t{0};
      const be32 length(sizeof extra);
      std::memcpy(table.data() + fixed_at + kExtraLengthAt, &length, sizeof length);
      append(table, std::as_bytes(std::span(&extra, 1)));
    }
    append(table, entry.subspan(kFixedBytes + extra_bytes, name_bytes));
    at += kFixedBytes + extra_bytes + name_bytes;
  }
  return table;
}

}  // namespace

Result<void> Repairer::complete_snapshot_table() {
  image_.lock_.assert_wrlocked();
  CheckResult& result = checker_->result();
  const uint64_t defects = checker_->snapshot_defects();
  // Clusters are allocated, so the refcounts have to be right.
  if (result.corruptions != defects || result.check_errors != 0) return {};
  COIMG_TRY(forget_caches());

  Header& header = image_.header_;
  const Geometry& geometry = image_.geometry_;
  const SnapshotTable parsed = COIMG_TRY(load_snapshot_table(image_.file_, header));
  std::vector<std::byte> old(parsed.bytes);
  COIMG_TRY(read_padded(image_.file_, header.snapshots_offset, old));
  const std::optional<std::vector<std::byte>> table = complete_entries(old, header.nb_snapshots, header.size);
  if (!table) return Error(EUCLEAN, "the snapshot table is too short for its entries");
  if (table->size() > kMaxSnapshotTableBytes) return Error(EFBIG, "the repaired snapshot table would become too large");

  changed_ = true;
  const ClusterCount clusters(geometry.clusters_for(table->size()));
  const HostOffset offset = geometry.host_offset(COIMG_TRY(image_.refcounts_->allocate(clusters)));
  COIMG_TRY(image_.file_.co_pwrite(offset.v, *table).with_context("writing the repaired snapshot table"));
  COIMG_TRY(image_.flush_locked());

  const be64 stored(offset.v);
  COIMG_TRY(image_.file_.co_pwrite(offsetof(DiskHeaderV2, snapshots_offset), std::as_bytes(std::span(&stored, 1)))
                .with_context("storing the place of the repaired snapshot table"));
  COIMG_TRY(image_.file_.co_flush().with_context("flushing the header"));
  const HostCluster old_start = geometry.host_cluster(header.snapshots_offset);
  header.snapshots_offset = offset;
  image_.refcounts_->free_best_effort(old_start, ClusterCount(geometry.clusters_for(parsed.bytes)));
  COIMG_TRY(image_.flush_locked());
  image_.snapshots_ = COIMG_TRY(load_snapshot_table(image_.file_, header)).snapshots;
  result.corruptions -= defects;
  result.corruptions_fixed += defects;
  return {};
}

}  // namespace coimg::qcow2
