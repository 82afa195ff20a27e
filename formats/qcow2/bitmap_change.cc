// Bitmaps: what users ask for. All of it happens in memory; closing the image stores it.
//
// Format: qcow2, section "Persistent bitmaps: qemu-img bitmap actions".
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "block/util/buffer.h"
#include "block/util/math.h"
#include "formats/qcow2/bitmaps.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {

/// Of new bitmaps: a bit a cluster, within what is neither too fine to be small nor too coarse to be useful.
constexpr uint64_t kMinDefaultGranularity = 4 * kKiB, kMaxDefaultGranularity = 64 * kKiB;

Error no_such_bitmap(const std::string& name) { return {ENOENT, fmt::format("Dirty bitmap '{}' not found", name)}; }

}  // namespace

Bitmap* Bitmaps::find(const std::string& name) {
  const auto found = std::ranges::find(list_, name, [](const Bitmap& bitmap) { return bitmap.entry.name; });
  return found == list_.end() ? nullptr : &*found;
}

/// Errors: ENOENT, and EINVAL for one that is inconsistent.
Result<Bitmap*> Bitmaps::find_usable(const std::string& name) {
  Bitmap* const bitmap = find(name);
  if (bitmap == nullptr) return no_such_bitmap(name);
  if (bitmap->entry.in_use) return inconsistent_bitmap(name);
  return bitmap;
}

Result<void> Bitmaps::add(const BitmapInfo& info) {
  const uint64_t cluster_size = image_.geometry_.cluster_size(), disk_bytes = image_.virtual_size_;
  const uint64_t granularity =
      info.granularity ? info.granularity : std::clamp(cluster_size, kMinDefaultGranularity, kMaxDefaultGranularity);
  const auto granularity_bits = static_cast<uint8_t>(std::countr_zero(granularity));
  const auto refused = [&](int errnum, std::string_view reason) {
    return Error(errnum,
                 fmt::format("Can't make bitmap '{}' persistent in '{}': {}", info.name, image_.filename_, reason));
  };
  if (!image_.supports_bitmaps()) return refused(ENOTSUP, "Cannot store dirty bitmaps in qcow2 v2 files");
  if (info.name.size() > kMaxBitmapNameBytes) {
    return refused(EINVAL, fmt::format("Name length exceeds maximum ({} characters)", kMaxBitmapNameBytes));
  }
  if (const auto fits = check_bitmap_size(disk_bytes, granularity_bits); !fits.ok()) {
    return refused(fits.error().errnum(), fits.error().message());
  }
  if (list_.size() >= kMaxBitmaps) return refused(EOVERFLOW, "Maximum number of persistent bitmaps is already reached");
  if (find(info.name) != nullptr) return Error(EEXIST, fmt::format("Bitmap already exists: {}", info.name));

  Bitmap& bitmap = list_.emplace_back();
  bitmap.entry = {.automatic = info.recording, .granularity_bits = granularity_bits, .name = info.name};
  bitmap.bits = BitmapBits(disk_bytes, granularity_bits, cluster_size);
  bitmap.loaded = true;
  changed_ = true;
  recording_changed();
  return {};
}

Result<void> Bitmaps::remove(const std::string& name) {
  Bitmap* const bitmap = find(name);
  if (bitmap == nullptr) return no_such_bitmap(name);
  if (!bitmap->loaded) {
    const Result<void> loaded = load_table(*bitmap);
    if (!loaded.ok() && loaded.error().errnum() != EINVAL) return loaded;
  }
  collect_clusters(*bitmap, {}, removed_);
  list_.erase(list_.begin() + (bitmap - list_.data()));
  changed_ = true;
  recording_changed();
  return {};
}

Result<void> Bitmaps::clear(const std::string& name) {
  Bitmap* const bitmap = COIMG_TRY(find_usable(name));
  bitmap->bits.clear();
  changed_ = true;
  return {};
}

Result<void> Bitmaps::set_recording(const std::string& name, bool recording) {
  Bitmap* const bitmap = COIMG_TRY(find_usable(name));
  bitmap->entry.automatic = recording;
  changed_ = true;
  recording_changed();
  return {};
}

Result<void> Bitmaps::merge(const std::string& name, BlockDriver& source, const std::string& source_name) {
  if (find(name) == nullptr) return no_such_bitmap(name);
  const std::vector<BitmapInfo> bitmaps = source.bitmaps();
  const auto merged = std::ranges::find(bitmaps, source_name, &BitmapInfo::name);
  if (merged == bitmaps.end()) return no_such_bitmap(source_name);
  Bitmap* const target = COIMG_TRY(find_usable(name));
  if (merged->inconsistent) return inconsistent_bitmap(source_name);
  if (source.length() != image_.virtual_size_) {
    return Error(EINVAL, fmt::format("Bitmaps are of different sizes (destination size is {}, source size is {}) and "
                                     "can't be merged",
                                     image_.virtual_size_, source.length()));
  }
  const auto add = [target](uint64_t offset, uint64_t bytes) { target->bits.set(offset, bytes); };
  changed_ = true;
  if (&source != &image_) return source.visit_bitmap(source_name, add);
  return name == source_name ? Result<void>() : visit(source_name, add);
}

Result<void> Bitmaps::visit(const std::string& name, const DirtyVisitor& visitor) {
  Bitmap* const bitmap = COIMG_TRY(find_usable(name));
  COIMG_TRY(load_table(*bitmap));
  const uint64_t granularity = bitmap->bits.granularity();
  AlignedBuffer bits(bitmap->bits.chunk_bytes());
  for (uint64_t chunk = 0; chunk < bitmap->bits.chunks(); ++chunk) {
    if (bitmap->bits.known_clear(chunk)) continue;
    COIMG_TRY(load_chunk(*bitmap, chunk, bits.span()));
    const uint64_t first_bit = chunk * bitmap->bits.chunk_bytes() * 8;
    for_each_run(bits.span(), [&](uint64_t first, uint64_t count) {
      const uint64_t offset = (first_bit + first) * granularity;
      visitor(offset, std::min(count * granularity, bitmap->bits.disk_bytes() - offset));
    });
  }
  return {};
}

// --- the driver's interface ------------------------------------------------------------------------------------------

bool Qcow2::supports_bitmaps() const CO_NO_THREAD_SAFETY_ANALYSIS {  // the version does not change
  return header_.version >= 3;
}

std::vector<BitmapInfo> Qcow2::bitmaps() const {
  std::vector<BitmapInfo> list;
  for (const Bitmap& bitmap : bitmaps_.list()) {
    list.push_back({.name = bitmap.entry.name,
                    .granularity = uint64_t{1} << bitmap.entry.granularity_bits,
                    .recording = bitmap.entry.automatic,
                    .inconsistent = bitmap.entry.in_use});
  }
  return list;
}

Result<void> Qcow2::add_bitmap(const BitmapInfo& bitmap) {
  COIMG_TRY(check_usable());
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  return bitmaps_.add(bitmap);
}

Result<void> Qcow2::remove_bitmap(const std::string& name) {
  COIMG_TRY(check_usable());
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  return bitmaps_.remove(name);
}

Result<void> Qcow2::clear_bitmap(const std::string& name) {
  COIMG_TRY(check_usable());
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  return bitmaps_.clear(name);
}

Result<void> Qcow2::set_bitmap_recording(const std::string& name, bool recording) {
  COIMG_TRY(check_usable());
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  return bitmaps_.set_recording(name, recording);
}

Result<void> Qcow2::merge_bitmap(const std::string& name, BlockDriver& source, const std::string& source_name) {
  COIMG_TRY(check_usable());
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  return bitmaps_.merge(name, source, source_name);
}

Result<void> Qcow2::visit_bitmap(const std::string& name, const DirtyVisitor& visitor) {
  COIMG_TRY(check_usable());
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  return bitmaps_.visit(name, visitor);
}

}  // namespace coimg::qcow2
