#include "formats/qcow2/bitmap.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <unordered_set>
#include <utility>

#include "formats/qcow2/ordered_reads.h"

namespace coimg::qcow2 {

namespace {

struct DiskBitmapEntry {
  be64 table_offset;
  be32 table_entries;
  be32 flags;
  uint8_t type;
  uint8_t granularity_bits;
  be16 name_bytes;
  be32 extra_bytes;
};
static_assert(sizeof(DiskBitmapEntry) == 24);

enum BitmapFlag : uint32_t { kInUse = 1u << 0, kAuto = 1u << 1, kKnownFlags = kInUse | kAuto };

constexpr uint8_t kDirtyTracking = 1;
constexpr uint8_t kMinGranularityBits = 9, kMaxGranularityBits = 31;
constexpr uint32_t kMaxBitmapTableEntries = 0x8000000;
constexpr uint64_t kEntryAlignment = 8;
constexpr uint64_t kTableReserved = 0xff000000000001fe;

/// Damage found in the directory, `position` bytes behind its start.
Error damaged_directory(const Header& header, uint64_t position, std::string message = "Broken bitmap directory") {
  return Error(EINVAL, std::move(message)).at("bitmap directory", header.bitmaps->directory_offset.v + position);
}

bool satisfies_constraints(const DiskBitmapEntry& entry, const Header& header) {
  const uint64_t entries = entry.table_entries, cluster = header.geometry().cluster_size();
  if (entry.table_offset == 0 || !is_aligned(entry.table_offset, cluster)) return false;
  if (entries == 0 || entries > kMaxBitmapTableEntries || entries * cluster > kMaxBitmapBytes) return false;
  if (entry.flags & ~uint32_t{kKnownFlags} || entry.type != kDirtyTracking) return false;
  if (entry.granularity_bits < kMinGranularityBits || entry.granularity_bits > kMaxGranularityBits) return false;
  if (entry.name_bytes > kMaxBitmapNameBytes) return false;
  // At most 2^29 bytes of bitmap, 8 bits each, 2^31 guest bytes a bit: exactly 2^63.
  const uint64_t covered = (entries * cluster * 8) << entry.granularity_bits;
  return (entry.flags & kInUse) || covered >= header.size;
}

/// Whether the table has one entry for each cluster of bits that the disk needs, no less and no more.
bool fits_disk(const BitmapEntry& bitmap, const Header& header) {
  return bitmap.table_entries ==
         header.geometry().clusters_for(bitmap_data_bytes(header.size, bitmap.granularity_bits));
}

}  // namespace

bool BitmapTableEntry::valid(const Geometry& geometry) const {
  if (raw_ & kTableReserved || geometry.in_cluster(cluster().v) != 0) return false;
  return cluster().v == 0 || (raw_ & 1) == 0;
}

uint64_t bitmap_data_bytes(uint64_t disk_bytes, uint8_t granularity_bits) {
  return div_ceil(div_ceil(disk_bytes, uint64_t{1} << granularity_bits), 8);
}

Result<void> check_bitmap_size(uint64_t disk_bytes, uint8_t granularity_bits) {
  if (disk_bytes == 0) return Error(EINVAL, "The disk has no size");
  if (bitmap_data_bytes(disk_bytes, granularity_bits) > kMaxBitmapBytes) {
    return Error(EINVAL, "Too much space will be occupied by the bitmap. Use larger granularity");
  }
  return {};
}

uint64_t bitmap_clusters_at_once(const Geometry& geometry) {
  return std::max<uint64_t>(1, kMiB >> geometry.cluster_bits());
}

Error too_many_bitmap_tables() {
  return {EFBIG, fmt::format("the bitmap tables take more than {} bytes", kMaxBitmapTablesBytes)};
}

Result<std::vector<BitmapEntry>> load_bitmap_directory(BlockNode& file, const Header& header) {
  std::vector<BitmapEntry> bitmaps;
  if (!header.bitmaps || !(header.autoclear_features & kBitmapsValid)) return bitmaps;

  std::vector<std::byte> directory(header.bitmaps->directory_bytes);  // bounded by parse_header()
  COIMG_TRY(file.co_pread(header.bitmaps->directory_offset.v, directory));
  std::unordered_set<std::string> names;
  uint64_t position = 0;
  for (uint32_t i = 0; i < header.bitmaps->count; ++i) {
    DiskBitmapEntry entry;
    const auto damaged = [&header, position](auto&&... message) {
      return damaged_directory(header, position, std::forward<decltype(message)>(message)...);
    };
    if (!range_within(position, sizeof(entry), directory.size())) return damaged();
    std::memcpy(&entry, directory.data() + position, sizeof(entry));
    const uint64_t bytes = align_up(sizeof(entry) + uint64_t{entry.extra_bytes} + entry.name_bytes, kEntryAlignment);
    if (!range_within(position, bytes, directory.size())) return damaged();
    if (entry.extra_bytes != 0) return damaged("Bitmap extra data is not supported");
    const auto* name = reinterpret_cast<const char*>(directory.data() + position + sizeof(entry));
    if (!satisfies_constraints(entry, header)) {
      return damaged(
          fmt::format("Bitmap '{}' doesn't satisfy the constraints", std::string_view(name, entry.name_bytes)));
    }

    BitmapEntry bitmap{.table_offset = HostOffset(entry.table_offset),
                       .table_entries = entry.table_entries,
                       .in_use = (entry.flags & kInUse) != 0,
                       .automatic = (entry.flags & kAuto) != 0,
                       .granularity_bits = entry.granularity_bits,
                       .name = std::string(name, entry.name_bytes)};
    if (!names.insert(bitmap.name).second) return damaged();
    bitmaps.push_back(std::move(bitmap));
    position += bytes;
  }
  if (position != directory.size()) return damaged_directory(header, position);
  for (const BitmapEntry& bitmap : bitmaps) {  // one in use may be of a time when the disk had another size
    if (bitmap.in_use || fits_disk(bitmap, header)) continue;
    return Error(EINVAL, fmt::format("Could not read bitmap '{}' from image: Invalid argument", bitmap.name))
        .at("bitmap table", bitmap.table_offset.v);
  }
  return bitmaps;
}

Result<std::vector<std::byte>> encode_bitmap_directory(std::span<const BitmapEntry> bitmaps) {
  std::vector<std::byte> directory;
  const auto append = [&directory](std::span<const std::byte> bytes) {
    directory.insert(directory.end(), bytes.begin(), bytes.end());
  };
  for (const BitmapEntry& bitmap : bitmaps) {
    const DiskBitmapEntry disk{
        .table_offset = bitmap.table_offset.v,
        .table_entries = bitmap.table_entries,
        .flags = (bitmap.in_use ? uint32_t{kInUse} : 0) | (bitmap.automatic ? uint32_t{kAuto} : 0),
        .type = kDirtyTracking,
        .granularity_bits = bitmap.granularity_bits,
        .name_bytes = static_cast<uint16_t>(bitmap.name.size()),
        .extra_bytes = 0,
    };
    append(std::as_bytes(std::span(&disk, 1)));
    append(std::as_bytes(std::span(bitmap.name)));
    directory.resize(align_up(directory.size(), kEntryAlignment));
    if (directory.size() > kMaxBitmapDirectoryBytes) return Error(EFBIG, "No space in the bitmap directory");
  }
  return directory;
}

}  // namespace coimg::qcow2
