// BlockNode: requests that concern dirty bitmaps.
#include <bit>

#include "block/node.h"
#include "block/util/math.h"

namespace coimg {

namespace {

constexpr uint64_t kMinGranularity = 512, kMaxGranularity = 2 * kGiB;

Error read_only() { return {EACCES, "image is read-only"}; }

}  // namespace

Result<void> BlockNode::co_add_bitmap(const BitmapInfo& bitmap) {
  if (!flags_.writable) return read_only();
  if (bitmap.name.empty()) return Error(EINVAL, "Bitmap name cannot be empty");
  const uint64_t granularity = bitmap.granularity;
  const bool in_range = granularity >= kMinGranularity && granularity <= kMaxGranularity;
  if (granularity != 0 && !(in_range && std::has_single_bit(granularity))) {
    return Error(EINVAL, "Granularity must be power of 2 and at least 512");
  }
  return driver_->add_bitmap(bitmap).in_file(subject());
}

Result<void> BlockNode::co_remove_bitmap(const std::string& name) {
  if (!flags_.writable) return read_only();
  return driver_->remove_bitmap(name).in_file(subject());
}

Result<void> BlockNode::co_clear_bitmap(const std::string& name) {
  if (!flags_.writable) return read_only();
  return driver_->clear_bitmap(name).in_file(subject());
}

Result<void> BlockNode::co_set_bitmap_recording(const std::string& name, bool recording) {
  if (!flags_.writable) return read_only();
  return driver_->set_bitmap_recording(name, recording).in_file(subject());
}

Result<void> BlockNode::co_merge_bitmap(const std::string& name, BlockNode& source, const std::string& source_name) {
  if (!flags_.writable) return read_only();
  return driver_->merge_bitmap(name, *source.driver_, source_name).in_file(subject());
}

Result<void> BlockNode::co_visit_bitmap(const std::string& name, const DirtyVisitor& visitor) {
  return driver_->visit_bitmap(name, visitor).in_file(subject());
}

}  // namespace coimg
