// What info tells about an add-cow image.
//
// Format: add-cow, section "info".
#include <fmt/format.h>

#include "block/open.h"
#include "formats/add_cow/add_cow.h"

namespace coimg::add_cow {

Result<ImageInfo> AddCow::info() {
  ImageInfo info;
  info.cluster_size = geometry_.cluster_bytes();
  info.backing_filename = header_.backing_file;
  info.backing_format = header_.backing_format;
  info.backing_unused = all_allocated_ || flags_.check;
  if (!flags_.no_io) return info;  // the rest is for those who look at nothing else, as it takes its time

  InfoTree tree;
  auto add = [&tree](std::string key, auto value) { tree.fields.push_back({std::move(key), std::move(value)}); };
  const std::string resolved = resolve_backing_name(file_.filename(), header_.image_file);
  add("image-file", header_.image_file);
  if (resolved != header_.image_file) add("full-image-file", resolved);
  add("image-format", header_.image_format);
  if (!image_) {
    add("size-known", false);  // it is that of the image file, which was not opened
    info.format_specific = std::move(tree);
    return info;
  }
  const auto stored_bytes = image_->co_allocated_file_size();
  if (stored_bytes.ok() && *stored_bytes) add("image-actual-size", static_cast<int64_t>(**stored_bytes));
  add("all-allocated", all_allocated_);
  add("allocated-clusters", static_cast<int64_t>(all_allocated_ ? clusters() : COIMG_TRY(bitmap_->count_set())));
  add("total-clusters", static_cast<int64_t>(clusters()));
  const uint64_t unknown = header_.compatible_features & ~kAllAllocated;
  if (unknown != 0) add("unknown-compatible-features", fmt::format("{:#x}", unknown));
  info.format_specific = std::move(tree);
  return info;
}

}  // namespace coimg::add_cow
