// Another backing file under an image, none any more, and an image without content of its own.
//
// Format: add-cow, sections "rebase", "commit".
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "block/open.h"
#include "block/util/buffer.h"
#include "block/util/math.h"
#include "formats/add_cow/add_cow.h"

namespace coimg::add_cow {

namespace {

constexpr uint64_t kCopyBytes = kMiB;

}  // namespace

// --- the header ------------------------------------------------------------------------------------------------------

Result<HeaderRange> AddCow::place_name(const std::string& name) const {
  const auto room = find_room(header_, name.size());
  if (room) return *room;
  return Error(ENOSPC, fmt::format("the header has no room for a name of {} bytes beside those in use", name.size()));
}

Result<void> AddCow::store_name(const HeaderRange& place, const std::string& name) {
  return file_.co_pwrite(place.offset, std::as_bytes(std::span(name))).with_context("writing the add-cow header");
}

/// Zeroes a name that is not in use any more, but for what others have of it: nothing keeps names from overlapping.
Result<void> AddCow::wipe_name(const HeaderRange& place) {
  for (uint64_t offset = place.offset; offset < place.offset + place.bytes;) {
    const uint64_t bytes = unused_bytes(header_, offset, place.offset + place.bytes - offset);
    if (bytes != 0) COIMG_TRY(store_name({offset, bytes}, std::string(bytes, '\0')));
    offset += std::max<uint64_t>(bytes, 1);
  }
  return {};
}

/// Crash: the names in use are the old ones or the new ones, and each is complete.
Result<void> AddCow::replace_header(Header header) {
  const auto moved = [](const HeaderRange& from, const HeaderRange& to) {
    return from.offset != to.offset || from.bytes != to.bytes;
  };
  const bool backing_moved = moved(header_.backing_name, header.backing_name);
  const bool image_moved = moved(header_.image_name, header.image_name);
  if (backing_moved && header.backing_name.bytes != 0) {
    COIMG_TRY(store_name(header.backing_name, header.backing_file));
  }
  if (image_moved) COIMG_TRY(store_name(header.image_name, header.image_file));
  COIMG_TRY(file_.co_flush());

  const DiskHeader fixed = encode_fixed_fields(header);
  COIMG_TRY(
      file_.co_pwrite(0, std::as_bytes(std::span(&fixed, 1))).with_context("writing the fields of the add-cow header"));
  COIMG_TRY(file_.co_flush());

  const Header old = std::exchange(header_, std::move(header));
  if (backing_moved) COIMG_TRY(wipe_name(old.backing_name));
  if (image_moved) COIMG_TRY(wipe_name(old.image_name));
  return file_.co_flush();
}

// --- another backing file --------------------------------------------------------------------------------------------

Result<Header> AddCow::header_with_backing(const std::string& name, const std::string& format) const {
  if (name.size() > kMaxBackingNameBytes) return Error::from_errno(ENAMETOOLONG);
  if (format.size() > kMaxFormatNameBytes || name.empty() != format.empty()) return Error::from_errno(EINVAL);
  Header header = header_;
  header.backing_file = name;
  header.backing_format = format;
  if (name.empty()) {
    header.backing_name = {};
    return header;
  }
  const auto identity = find_host_file(resolve_backing_name(file_.filename(), name));
  for (const BlockNode* own = &node_; identity && own; own = own->data_file()) {
    if (own->file_identity() == identity) {
      return Error(EINVAL, fmt::format("'{}' is a part of the image itself", name));
    }
  }
  if (name != header_.backing_file) header.backing_name = COIMG_TRY(place_name(name));
  return header;
}

Result<void> AddCow::check_backing_change(const std::string& name, const std::string& format) const {
  COIMG_TRY(header_with_backing(name, format));
  return {};
}

/// Crash: the header names the old file or the new one. What hides the difference was flushed before.
Result<void> AddCow::change_backing_file(const std::string& name, const std::string& format) {
  Header header = COIMG_TRY(header_with_backing(name, format));  // before anything changes
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  // Without a look at what lies below (rebase -u) the clusters that come from there stay as they are, without a bit.
  if (name.empty() && !flags_.no_backing) COIMG_TRY(complete_without_backing());
  COIMG_TRY(flush());
  header.compatible_features = header_.compatible_features;
  return replace_header(std::move(header));
}

/// Takes all that the guest sees into the image file, which can be used without the add-cow file from then on.
Result<void> AddCow::complete_without_backing() {
  if (all_allocated_) return {};
  AlignedBuffer buffer(std::max(kCopyBytes, geometry_.cluster_bytes()));
  for (uint64_t offset = 0; offset < virtual_size_;) {
    const Extent extent = COIMG_TRY(map(offset, virtual_size_ - offset));
    uint64_t bytes = extent.bytes;
    if (!extent.in_image) {
      const BackingExtent below = COIMG_TRY(map_backing(offset, bytes));
      const uint64_t zeros_end = below.bytes == bytes ? offset + bytes : geometry_.cluster_down(offset + below.bytes);
      if (below.zero && zeros_end > offset) {
        bytes = zeros_end - offset;
        COIMG_TRY(image_->co_pwrite_zeroes(offset, bytes, {.may_unmap = true}));
      } else {
        bytes = std::min<uint64_t>({bytes, buffer.size(), cluster_end(offset + below.bytes) - offset});
        const IoVector content(buffer.span().first(bytes));
        COIMG_TRY(read_backing(offset, content));
        COIMG_TRY(image_->co_pwritev(offset, content));
      }
      COIMG_TRY(note_allocated(offset, bytes));
    }
    offset += bytes;
  }
  has_allocated_ = true;  // though perhaps by somebody else
  return flush();
}

// --- no content of its own -------------------------------------------------------------------------------------------

/// The bits go first: the image file's bytes mean nothing without them.
///
/// Crash: each page of bits is there or not; what is in the image file is what the backing file has by now.
Result<void> AddCow::make_empty() {
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  COIMG_TRY(flush());
  has_allocated_ = false;
  first_gap_ = 0;
  COIMG_TRY(bitmap_->clear_from(GuestCluster(0), file_.exact_length() - geometry_.header_bytes()));
  COIMG_TRY(file_.co_flush());
  if (all_allocated_) {
    COIMG_TRY(store_compatible_features(header_.compatible_features & ~kAllAllocated));
    all_allocated_ = false;
  }
  return image_->co_pdiscard(0, virtual_size_);
}

}  // namespace coimg::add_cow
