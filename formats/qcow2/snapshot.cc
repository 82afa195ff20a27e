#include "formats/qcow2/snapshot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "block/util/buffer.h"

namespace coimg::qcow2 {

namespace {

struct DiskSnapshot {
  be64 l1_table_offset;
  be32 l1_size;
  be16 id_bytes;
  be16 name_bytes;
  be32 date_sec;
  be32 date_nsec;
  be64 vm_clock_nsec;
  be32 vm_state_bytes;
  be32 extra_bytes;
};
static_assert(sizeof(DiskSnapshot) == 40);

struct DiskSnapshotExtra {
  be64 vm_state_bytes;
  be64 disk_size;
  be64 icount;
};
static_assert(sizeof(DiskSnapshotExtra) == kKnownSnapshotExtraBytes);

constexpr uint64_t kEntryAlignment = 8;
constexpr size_t kReadAhead = 64 * kKiB;

/// Reads a table of entries of varying length front to back, many at a time. What lies behind the end of the file is
/// zeros, as everywhere in the format.
class TableReader {
 public:
  TableReader(BlockNode& file, HostOffset start) : file_(file), start_(start), buffer_(kReadAhead) {}

  [[nodiscard]] uint64_t position() const { return position_; }
  void skip(uint64_t bytes) { position_ += bytes; }
  void align() { position_ = align_up(position_, kEntryAlignment); }

  Result<void> read(std::span<std::byte> target) coroutine_fn {
    while (!target.empty()) {
      if (position_ < loaded_from_ || position_ >= loaded_from_ + loaded_) {
        COIMG_TRY(file_.co_pread(start_.v + position_, buffer_.span()));
        loaded_from_ = position_;
        loaded_ = buffer_.size();
      }
      const size_t inside = position_ - loaded_from_;
      const size_t bytes = std::min(target.size(), loaded_ - inside);
      std::memcpy(target.data(), buffer_.data() + inside, bytes);
      target = target.subspan(bytes);
      position_ += bytes;
    }
    return {};
  }

  Result<std::string> read_text(size_t bytes) coroutine_fn {
    std::string text(bytes, '\0');
    COIMG_TRY(read(std::as_writable_bytes(std::span(text))));
    text.resize(std::strlen(text.c_str()));
    return text;
  }

 private:
  BlockNode& file_;
  const HostOffset start_;
  uint64_t position_ = 0;
  AlignedBuffer buffer_;
  uint64_t loaded_from_ = 0;
  size_t loaded_ = 0;
};

Result<Snapshot> read_snapshot(TableReader& table, const Header& header, uint32_t index, OversizedSnapshots oversized)
    coroutine_fn {
  table.align();
  DiskSnapshot disk;
  COIMG_TRY(table.read(std::as_writable_bytes(std::span(&disk, 1))));
  Snapshot snapshot;
  snapshot.l1_table_offset = HostOffset(disk.l1_table_offset);
  snapshot.l1_size = disk.l1_size;
  snapshot.date_sec = disk.date_sec;
  snapshot.date_nsec = disk.date_nsec;
  snapshot.vm_clock_ns = disk.vm_clock_nsec;
  snapshot.vm_state_bytes = disk.vm_state_bytes;
  snapshot.disk_size = header.size;
  snapshot.extra_bytes = disk.extra_bytes;
  if (has_too_much_extra(snapshot) && oversized == OversizedSnapshots::kRefuse) {
    return Error(EINVAL, fmt::format("Too much extra metadata in snapshot table entry {}", index));
  }

  std::vector<std::byte> extra(std::min(snapshot.extra_bytes, kMaxSnapshotExtraBytes));
  COIMG_TRY(table.read(extra));
  table.skip(snapshot.extra_bytes - extra.size());
  // Each field is there only when the extra data cover it.
  DiskSnapshotExtra fields;
  std::ranges::copy(std::span(extra).first(std::min(extra.size(), sizeof(fields))),
                    std::as_writable_bytes(std::span(&fields, 1)).begin());
  if (extra.size() >= offsetof(DiskSnapshotExtra, disk_size)) snapshot.vm_state_bytes = fields.vm_state_bytes;
  if (extra.size() >= offsetof(DiskSnapshotExtra, icount)) snapshot.disk_size = fields.disk_size;
  if (extra.size() >= sizeof(fields)) {
    snapshot.icount = fields.icount;
    snapshot.unknown_extra.assign(extra.begin() + sizeof(fields), extra.end());
  }

  snapshot.id = COIMG_TRY(table.read_text(disk.id_bytes));
  snapshot.name = COIMG_TRY(table.read_text(disk.name_bytes));
  return snapshot;
}

}  // namespace

Result<SnapshotTable> load_snapshot_table(BlockNode& file, const Header& header, OversizedSnapshots oversized) {
  SnapshotTable table;
  TableReader reader(file, header.snapshots_offset);
  const uint32_t count = std::min(header.nb_snapshots, kMaxSnapshots);  // a header with more was let pass for check
  table.overhanging = header.nb_snapshots - count;
  for (uint32_t i = 0; i < count; ++i) {
    Snapshot snapshot = COIMG_TRY(read_snapshot(reader, header, i, oversized));
    if (reader.position() > kMaxSnapshotTableBytes && oversized == OversizedSnapshots::kDiscard) {
      table.overhanging = header.nb_snapshots - i;
      return table;
    }
    table.snapshots.push_back(std::move(snapshot));
    table.bytes = reader.position();
    if (reader.position() > kMaxSnapshotTableBytes) {
      return Error(EFBIG, fmt::format("Snapshot table is too large: it passes {} bytes with entry {} of {}",
                                      kMaxSnapshotTableBytes, i, header.nb_snapshots));
    }
  }
  return table;
}

Result<std::vector<std::byte>> encode_snapshot_table(std::span<const Snapshot> snapshots) {
  std::vector<std::byte> table;
  const auto append = [&table](std::span<const std::byte> bytes) {
    table.insert(table.end(), bytes.begin(), bytes.end());
  };
  for (const Snapshot& snapshot : snapshots) {
    table.resize(align_up(table.size(), kEntryAlignment));
    const bool small_state = snapshot.vm_state_bytes <= UINT32_MAX;
    const DiskSnapshot disk{
        .l1_table_offset = snapshot.l1_table_offset.v,
        .l1_size = snapshot.l1_size,
        .id_bytes = static_cast<uint16_t>(snapshot.id.size()),
        .name_bytes = static_cast<uint16_t>(snapshot.name.size()),
        .date_sec = snapshot.date_sec,
        .date_nsec = snapshot.date_nsec,
        .vm_clock_nsec = snapshot.vm_clock_ns,
        .vm_state_bytes = small_state ? static_cast<uint32_t>(snapshot.vm_state_bytes) : 0,
        .extra_bytes = static_cast<uint32_t>(sizeof(DiskSnapshotExtra) + snapshot.unknown_extra.size()),
    };
    const DiskSnapshotExtra extra{
        .vm_state_bytes = snapshot.vm_state_bytes, .disk_size = snapshot.disk_size, .icount = snapshot.icount};
    append(std::as_bytes(std::span(&disk, 1)));
    append(std::as_bytes(std::span(&extra, 1)));
    append(snapshot.unknown_extra);
    append(std::as_bytes(std::span(snapshot.id)));
    append(std::as_bytes(std::span(snapshot.name)));
    if (table.size() > kMaxSnapshotTableBytes) return Error(EFBIG, "the snapshot table would become too large");
  }
  return table;
}

uint64_t stored_table_bytes(std::span<const Snapshot> snapshots) {
  uint64_t bytes = 0;
  for (const Snapshot& snapshot : snapshots) {
    bytes = align_up(bytes, kEntryAlignment) + sizeof(DiskSnapshot) + snapshot.extra_bytes + snapshot.id.size() +
            snapshot.name.size();
  }
  return bytes;
}

}  // namespace coimg::qcow2
