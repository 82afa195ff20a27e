// Format: add-cow, section "check".
#include "formats/add_cow/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>

#include "block/util/buffer.h"
#include "block/util/math.h"

namespace coimg::add_cow {

namespace {

constexpr uint64_t kReadBytes = 64 * kKiB;

}  // namespace

Result<CheckResult> AddCow::check(const CheckOptions& options) {
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  if (flags_.writable) COIMG_TRY(flush());
  return Checker(*this, options).run();
}

Result<CheckResult> Checker::run() {
  result_.image_end_offset = image_.file_.exact_length();
  for (const Error& fault : image_.faults_) {
    const std::string where = fault.place().structure.empty()
                                  ? ""
                                  : fmt::format("{} at {:#x}: ", fault.place().structure, *fault.place().offset);
    report(fmt::format("ERROR {}{}", where, fault.message()));
    ++result_.check_errors;
  }
  if (result_.check_errors != 0) return result_;

  result_.total_clusters = image_.clusters();
  COIMG_TRY(check_header());
  COIMG_TRY(check_length());
  COIMG_TRY(check_bits());
  COIMG_TRY(check_completeness());
  COIMG_TRY(check_leaks());
  return result_;
}

void Checker::report_corruption(const std::string& what) {
  report(fmt::format("{} {}", repairs_all() ? "Repairing" : "ERROR", what));
  ++(repairs_all() ? result_.corruptions_fixed : result_.corruptions);
}

// --- the header ------------------------------------------------------------------------------------------------------

Result<void> Checker::check_header() {
  const Header& header = image_.header_;
  const uint64_t unknown = header.compatible_features & ~kAllAllocated;
  if (unknown != 0) report(fmt::format("Note: compatible_features has bits that are not known: {:#x}", unknown));

  std::vector<std::byte> bytes = COIMG_TRY(read_header(image_.file_));
  const bool stray = has_stray_bytes(bytes, header);
  const bool stray_format = header.backing_file.empty() && !header.backing_format.empty();
  if (stray) report("Note: the header has bytes that nothing refers to");
  if (stray_format) report(fmt::format("Note: backing_fmt is '{}' without a backing file", header.backing_format));
  if ((stray || stray_format) && repairs_all()) return tidy_header(std::move(bytes));
  return {};
}

/// Zeroes what means nothing.
Result<void> Checker::tidy_header(std::vector<std::byte> bytes) {
  Header& header = image_.header_;
  if (header.backing_file.empty()) header.backing_format.clear();
  const std::vector<std::byte> encoded = encode_header(header);
  std::ranges::fill(bytes, std::byte{0});
  std::ranges::copy(encoded, bytes.begin());
  COIMG_TRY(image_.file_.co_pwrite(0, bytes));
  return image_.file_.co_flush();
}

// --- the bitmap ------------------------------------------------------------------------------------------------------

Result<void> Checker::check_length() {
  const Geometry& geometry = image_.geometry_;
  const uint64_t found = image_.file_.exact_length();
  const uint64_t needed = geometry.header_bytes() + geometry.bitmap_bytes(image_.virtual_size_);
  const uint64_t expected = geometry.file_bytes(image_.virtual_size_);
  if (found == expected) return {};
  if (found < needed && !image_.all_allocated_) {
    report_corruption(
        fmt::format("the COW bitmap is cut short: the file has {} bytes, a disk of {} bytes needs {}{}", found,
                    image_.virtual_size_, needed,
                    repairs_all() ? "; clusters whose bits are lost show the backing file's content" : ""));
  } else {
    report(fmt::format("Note: the file has {} bytes; with a disk of {} bytes {} are expected", found,
                       image_.virtual_size_, expected));
  }
  if (!repairs_all()) return {};
  if (found > expected && !image_.all_allocated_) {  // bits in there are corruptions, and have to be seen
    const uint64_t stray = COIMG_TRY(count_bits(expected, found, 0)).stray;
    if (stray != 0) report_corruption("the COW bitmap has set bits behind its end");
  }
  COIMG_TRY(image_.file_.co_truncate(expected));
  return image_.file_.co_flush();
}

/// Counts the bits in a part of the file, of which the first `meaningful` stand for clusters. Holes are not read.
Result<Checker::BitCount> Checker::count_bits(uint64_t begin, uint64_t end, uint64_t meaningful) {
  BitCount count;
  std::vector<std::byte> piece(kReadBytes);
  for (uint64_t offset = begin; offset < end;) {
    const BlockStatus status = COIMG_TRY(image_.file_.co_block_status(offset, end - offset));
    const uint64_t bytes = status.zero ? status.bytes : std::min<uint64_t>(piece.size(), end - offset);
    if (!status.zero) {
      const auto part = std::span(piece).first(bytes);
      COIMG_TRY(image_.file_.co_pread(offset, part));
      const uint64_t first = (offset - begin) * 8;
      const uint64_t set = count_set_bits(part, first < meaningful ? std::min(bytes * 8, meaningful - first) : 0);
      count.set += set;
      count.stray += count_set_bits(part, bytes * 8) - set;
    }
    offset += bytes;
  }
  return count;
}

/// Counts, and looks for bits that stand for no cluster: they would come to life when the disk grows.
Result<void> Checker::check_bits() {
  if (image_.all_allocated_) {
    result_.allocated_clusters = image_.clusters();
    return {};
  }
  const uint64_t clusters = image_.clusters();
  const uint64_t start = image_.geometry_.header_bytes();
  const uint64_t end = image_.file_.exact_length();
  const BitCount count = COIMG_TRY(count_bits(start, end, clusters));
  const uint64_t stray = count.stray;
  result_.allocated_clusters = count.set;
  if (stray == 0) return {};
  report_corruption(fmt::format("{} bits are set behind the last cluster, {}", stray, clusters));
  if (!repairs_all()) return {};
  COIMG_TRY(image_.bitmap_->clear_from(GuestCluster(clusters), end - start));
  COIMG_TRY(image_.bitmap_->store());
  return image_.file_.co_flush();
}

Result<void> Checker::check_completeness() {
  if (image_.all_allocated_ || result_.allocated_clusters != result_.total_clusters) return {};
  report("Note: all clusters are allocated, and the header does not say so");
  if (!repairs_all()) return {};
  image_.has_allocated_ = true;
  return image_.flush();
}

// --- the image file --------------------------------------------------------------------------------------------------

/// What the image file stores for clusters without a bit is of no use. The bits are looked up only where it stores
/// anything: what is sparse is soon done with, whatever its bits are.
Result<void> Checker::check_leaks() {
  const Geometry& geometry = image_.geometry_;
  const uint64_t end = image_.virtual_size_;
  Leaks leaks;
  for (uint64_t offset = 0; offset < end && !image_.all_allocated_;) {
    const BlockStatus status = COIMG_TRY(image_.image_->co_block_status(offset, end - offset));
    offset += status.bytes;
    if (!status.data || status.zero) continue;
    const uint64_t next = std::min(geometry.cluster_up(offset), end);  // no cluster is looked at twice
    COIMG_TRY(check_stored(geometry.cluster_down(offset - status.bytes), next, leaks));
    offset = next;
  }
  if (leaks.clusters == 0) return {};
  const bool repairs = options_.repair != RepairMode::kNone;
  report(fmt::format("{} from {} on: the image file stores data for {} clusters that are not allocated",
                     repairs ? "Repairing clusters" : "Leaked clusters", leaks.first, leaks.clusters));
  (repairs ? result_.leaks_fixed : result_.leaks) += leaks.clusters;
  return {};
}

/// Whole clusters, each of which has something stored.
Result<void> Checker::check_stored(uint64_t offset, uint64_t end, Leaks& leaks) {
  const Geometry& geometry = image_.geometry_;
  while (offset < end) {
    const AddCow::Extent extent = COIMG_TRY(image_.map(offset, end - offset));
    if (!extent.in_image) {
      const GuestCluster first = geometry.cluster_of(offset);
      if (leaks.clusters == 0) leaks.first = first.v;
      leaks.clusters += geometry.clusters(offset + extent.bytes) - first.v;
      if (options_.repair != RepairMode::kNone) {
        COIMG_TRY(image_.image_->co_pwrite_zeroes(offset, extent.bytes, {.may_unmap = true}));
      }
    }
    offset += extent.bytes;
  }
  return {};
}

}  // namespace coimg::add_cow
