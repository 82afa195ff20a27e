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

uint64_t count_set(std::span<const std::byte> bytes, uint64_t bits) {
  uint64_t count = 0;
  for (uint64_t bit = 0; bit < bits;) {
    const uint64_t run = count_equal_bits(bytes, bit, bits - bit);
    if (test_bit(bytes, bit)) count += run;
    bit += run;
  }
  return count;
}

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
                                  : fmt::format("{} at {:#x}: ", fault.place().structure, fault.place().offset);
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
  if (found > expected) {  // bits in there are corruptions, and have to be seen
    uint64_t stray = 0;
    std::vector<std::byte> piece(kReadBytes);
    for (uint64_t offset = expected; offset < found && stray == 0; offset += piece.size()) {
      const auto part = std::span(piece).first(std::min<uint64_t>(piece.size(), found - offset));
      COIMG_TRY(image_.file_.co_pread(offset, part));
      stray += count_set(part, part.size() * 8);
    }
    if (stray != 0 && !image_.all_allocated_) report_corruption("the COW bitmap has set bits behind its end");
  }
  COIMG_TRY(image_.file_.co_truncate(expected));
  return image_.file_.co_flush();
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
  uint64_t stray = 0;
  std::vector<std::byte> piece(kReadBytes);
  for (uint64_t offset = start; offset < end; offset += piece.size()) {
    const auto part = std::span(piece).first(std::min<uint64_t>(piece.size(), end - offset));
    COIMG_TRY(image_.file_.co_pread(offset, part));
    const uint64_t first = (offset - start) * 8;
    const uint64_t all = part.size() * 8;
    const uint64_t meaningful = first < clusters ? std::min(all, clusters - first) : 0;
    const uint64_t set = count_set(part, meaningful);
    result_.allocated_clusters += set;
    stray += count_set(part, all) - set;
  }
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

/// What the image file stores for clusters without a bit is of no use.
Result<void> Checker::check_leaks() {
  const Geometry& geometry = image_.geometry_;
  for (uint64_t offset = 0; offset < image_.virtual_size_;) {
    const AddCow::Extent extent = COIMG_TRY(image_.map(offset, image_.virtual_size_ - offset));
    if (!extent.in_image) COIMG_TRY(count_leaks(offset, extent.bytes));
    offset = std::min(geometry.cluster_up(offset + extent.bytes), image_.virtual_size_);
  }
  return {};
}

/// A range without bits, of whole clusters.
Result<void> Checker::count_leaks(uint64_t offset, uint64_t bytes) {
  const Geometry& geometry = image_.geometry_;
  const uint64_t end = offset + bytes;
  uint64_t leaks = 0;
  uint64_t first_leak = 0;
  while (offset < end) {
    const BlockStatus status = COIMG_TRY(image_.image_->co_block_status(offset, end - offset));
    const uint64_t status_end = offset + status.bytes;
    if (!status.data || status.zero) {
      offset = status_end;
      continue;
    }
    const GuestCluster first = geometry.cluster_of(offset);
    const uint64_t next = std::min(geometry.cluster_up(status_end), end);
    if (leaks == 0) first_leak = first.v;
    leaks += geometry.clusters(next) - first.v;
    if (options_.repair != RepairMode::kNone) {
      const uint64_t start = geometry.start_of(first);
      COIMG_TRY(image_.image_->co_pwrite_zeroes(start, next - start, {.may_unmap = true}));
    }
    offset = next;
  }
  if (leaks == 0) return {};
  const bool repairs = options_.repair != RepairMode::kNone;
  report(fmt::format("{} from {} on: the image file stores data for {} clusters that are not allocated",
                     repairs ? "Repairing clusters" : "Leaked clusters", first_leak, leaks));
  (repairs ? result_.leaks_fixed : result_.leaks) += leaks;
  return {};
}

}  // namespace coimg::add_cow
