// The path of reads and writes from a node's users to its driver.
//
//     co_pwritev            bounds, permission, rate limit, zeros that are to be detected
//       write_bytes         registers the range; exclusively where neighbouring bytes have to be preserved
//         write_padded      read-modify-write of the blocks at both ends, if they are not covered in whole
//           write_split     splits to the driver's limits; copies when its memory has to be aligned
//             the driver
//
// Reads go the same way without registering: a read-modify-write puts the same bytes back, so a read that overlaps one
// sees nothing wrong. Nothing is copied or allocated, apart from vectors of pieces, for requests that are aligned.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>

#include "block/node.h"
#include "block/throttle.h"
#include "block/util/buffer.h"
#include "block/util/math.h"
#include "coroutine/coroutine.h"

namespace coimg {
namespace {

/// The most that is copied at once for the sake of the memory's alignment.
constexpr uint64_t kBounceBytes = kMiB;

/// Offsets of protocol nodes stay below it, so that rounding them up cannot pass what the host can address.
constexpr uint64_t kProtocolEnd = kMaxFileOffset - kMiB;

/// Zeros for writing; nobody changes them. Not const, as that would be a megabyte of the program's file: like this the
/// pages are the kernel's zero page.
alignas(AlignedBuffer::kAlignment) std::byte zero_buffer[kMiB];

/// The bytes that a range lacks at either end to be made of whole blocks.
struct Padding {
  uint64_t head, tail;
  Padding(uint64_t offset, uint64_t bytes, uint64_t alignment)
      : head(offset - align_down(offset, alignment)), tail(align_up(offset + bytes, alignment) - (offset + bytes)) {}
  [[nodiscard]] bool empty() const { return (head | tail) == 0; }
};

bool memory_is_aligned(const IoVector& iov, uint32_t alignment) {
  if (alignment == 1) return true;
  return std::ranges::all_of(iov.pieces(), [alignment](const iovec& piece) {
    return is_aligned(reinterpret_cast<uintptr_t>(piece.iov_base) | piece.iov_len, alignment);
  });
}

IoVector vector_of(std::span<std::byte> head, const IoVector& middle, std::span<std::byte> tail) {
  IoVector result(head);
  result.add(middle, 0, middle.size());
  result.add(tail);
  return result;
}

/// Takes the turn of a request that needs several calls of the driver, so that it is placed as one.
class [[nodiscard]] PlacementTurn {
 public:
  explicit PlacementTurn(PlacementOrder::Ticket* ticket) : ticket_(ticket) {
    if (!ticket_) return;
    Coroutine::assume_in_coroutine();
    ticket_->wait_turn();
  }
  ~PlacementTurn() {
    if (ticket_) ticket_->finish();
  }
  PlacementTurn(const PlacementTurn&) = delete;
  PlacementTurn& operator=(const PlacementTurn&) = delete;

 private:
  PlacementOrder::Ticket* ticket_;
};

}  // namespace

Result<void> BlockNode::check_request(uint64_t offset, uint64_t bytes, bool write) const {
  assert(driver_ && !closed_);
  if (write && !flags_.writable) return Error(EACCES, "image is read-only");
  const uint64_t end = is_protocol_ ? kProtocolEnd : length();
  if (range_within(offset, bytes, end)) [[likely]]
    return {};
  return Error(EINVAL, fmt::format("request for {} bytes at offset {:#x} passes the end at {:#x}", bytes, offset, end));
}

// --- reading -------------------------------------------------------------------------------------------------------

Result<void> BlockNode::co_preadv(uint64_t offset, const IoVector& iov) {
  COIMG_TRY(check_request(offset, iov.size(), false));
  // The driver fills its last block; what lies behind that is zeros.
  const uint64_t stored_end = align_up(exact_length(), limits_.request_alignment);
  const uint64_t stored = offset < stored_end ? std::min(iov.size(), stored_end - offset) : 0;
  if (stored == iov.size()) [[likely]]
    return stored ? locate(read_padded(offset, iov), offset) : Result<void>();
  iov.fill(stored, iov.size() - stored, std::byte{0});
  return stored ? locate(read_padded(offset, iov.slice(0, stored)), offset) : Result<void>();
}

Result<void> BlockNode::co_pread(uint64_t offset, std::span<std::byte> memory) {
  return co_preadv(offset, IoVector(memory));
}

/// Reads whole blocks; the bytes that were not asked for are dropped.
Result<void> BlockNode::read_padded(uint64_t offset, const IoVector& iov) {
  const Padding padding(offset, iov.size(), limits_.request_alignment);
  if (padding.empty()) return read_aligned(offset, iov);
  AlignedBuffer dropped(padding.head + padding.tail);
  return read_aligned(offset - padding.head,
                      vector_of(dropped.span().first(padding.head), iov, dropped.span().subspan(padding.head)));
}

Result<void> BlockNode::read_aligned(uint64_t offset, const IoVector& iov) {
  const bool direct = memory_is_aligned(iov, limits_.memory_alignment);
  if (direct && iov.size() <= limits_.max_transfer) [[likely]]
    return driver_->preadv(offset, iov);

  const uint64_t largest = direct ? limits_.max_transfer : std::min(limits_.max_transfer, kBounceBytes);
  AlignedBuffer bounce(direct ? 0 : std::min(largest, iov.size()));
  for (uint64_t done = 0; done < iov.size();) {
    const uint64_t step = std::min(largest, iov.size() - done);
    if (direct) {
      COIMG_TRY(driver_->preadv(offset + done, iov.slice(done, step)));
    } else {
      const auto memory = bounce.span().first(step);
      COIMG_TRY(driver_->preadv(offset + done, IoVector(memory)));
      iov.copy_from(done, memory);
    }
    done += step;
  }
  return {};
}

/// Reads one block of the size of the request alignment, also beyond the end.
Result<void> BlockNode::read_block(uint64_t offset, std::span<std::byte> block) {
  if (offset < exact_length()) return read_aligned(offset, IoVector(block));
  std::ranges::fill(block, std::byte{0});
  return {};
}

// --- writing -------------------------------------------------------------------------------------------------------

Result<void> BlockNode::co_pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options) {
  COIMG_TRY(check_request(offset, iov.size(), true));
  if (iov.size() == 0) return {};
  if (flags_.detect_zeroes != DetectZeroes::kOff && iov.is_zero()) {
    const bool may_unmap = flags_.detect_zeroes == DetectZeroes::kUnmap && flags_.discard_unmap;
    COIMG_TRY(co_pwrite_zeroes(offset, iov.size(), {.may_unmap = may_unmap, .placement = options.placement}));
  } else {
    take_rate(iov.size());
    COIMG_TRY(locate(write_bytes(offset, iov, options.placement), offset));
  }
  return end_of_write(options.force_unit_access);
}

Result<void> BlockNode::co_pwrite(uint64_t offset, std::span<const std::byte> memory, const WriteOptions& options) {
  return co_pwritev(offset, IoVector(memory), options);
}

Result<void> BlockNode::co_pwrite_compressed(uint64_t offset, const IoVector& iov, const WriteOptions& options) {
  COIMG_TRY(check_request(offset, iov.size(), true));
  if (iov.size() == 0) return {};
  take_rate(iov.size());
  {
    const TrackedRequest request(tracker_, offset, iov.size(), RangeMode::kShared);
    auto written = driver_->pwrite_compressed(
        offset, iov, {.placement = options.placement, .compression_level = options.compression_level});
    ++write_generation_;
    COIMG_TRY(locate(std::move(written), offset));
  }
  return end_of_write(options.force_unit_access);
}

Result<void> BlockNode::end_of_write(bool force_unit_access) {
  if (force_unit_access || flags_.write_through) return co_flush();
  return {};
}

Result<void> BlockNode::write_bytes(uint64_t offset, const IoVector& iov, PlacementOrder::Ticket* placement) {
  const Padding padding(offset, iov.size(), limits_.request_alignment);
  uint64_t start = offset - padding.head;
  uint64_t end = offset + iov.size() + padding.tail;
  const bool is_protected = touches_protected_sector(offset);
  if (is_protected) {
    start = 0;
    end = std::max(end, kSectorSize);
  }
  const bool overshoots = padding.tail > 0 && end > exact_length();
  if (overshoots) end = UINT64_MAX;  // nobody else moves the end of the file meanwhile
  const bool exclusive = is_protected || !padding.empty();
  const TrackedRequest request(tracker_, start, end - start, exclusive ? RangeMode::kExclusive : RangeMode::kShared);
  if (is_protected) COIMG_TRY(check_format_change(offset, iov.size(), &iov));

  const uint64_t length_before = exact_length();
  auto written = padding.empty() ? write_aligned(offset, iov, placement) : write_padded(offset, iov, placement);
  if (written.ok() && overshoots) written = trim_to(std::max(length_before, offset + iov.size()));
  ++write_generation_;  // behind the driver's call: a flush that began before does not count for this write
  return written;
}

/// Takes back what filling up the last block has added to a file: else a raw image would become longer by being written
/// to. Locks: the caller holds the end of the file exclusively.
Result<void> BlockNode::trim_to(uint64_t end) {
  if (exact_length() <= end) return {};
  auto trimmed = driver_->truncate(end, Preallocation::kOff);
  if (!trimmed.ok() && trimmed.error().errnum() == ENOTSUP) return {};
  return trimmed;
}

/// Writes whole blocks, filled up with what is stored. Locks: the caller holds the blocks exclusively.
Result<void> BlockNode::write_padded(uint64_t offset, const IoVector& iov, PlacementOrder::Ticket* placement) {
  const uint64_t block = limits_.request_alignment;
  const Padding padding(offset, iov.size(), block);
  const uint64_t first = offset - padding.head;
  const uint64_t last = offset + iov.size() + padding.tail - block;
  const bool reads_last = padding.tail > 0 && (last != first || padding.head == 0);

  AlignedBuffer edges(2 * block);
  const auto first_block = edges.span().first(block);
  const auto last_block = last == first ? first_block : edges.span().subspan(block);
  if (padding.head > 0) {
    debug_event(DebugEvent::kPwritevRmwHead);
    COIMG_TRY(read_block(first, first_block));
    debug_event(DebugEvent::kPwritevRmwAfterHead);
  }
  if (reads_last) {
    debug_event(DebugEvent::kPwritevRmwTail);
    COIMG_TRY(read_block(last, last_block));
    debug_event(DebugEvent::kPwritevRmwAfterTail);
  }
  return write_aligned(first, vector_of(first_block.first(padding.head), iov, last_block.last(padding.tail)),
                       placement);
}

Result<void> BlockNode::write_aligned(uint64_t offset, const IoVector& iov, PlacementOrder::Ticket* placement) {
  debug_event(DebugEvent::kPwritev);
  auto written = write_split(offset, iov, placement);
  debug_event(DebugEvent::kPwritevDone);
  return written;
}

Result<void> BlockNode::write_split(uint64_t offset, const IoVector& iov, PlacementOrder::Ticket* placement) {
  const bool direct = memory_is_aligned(iov, limits_.memory_alignment);
  if (direct && iov.size() <= limits_.max_transfer) [[likely]] {
    return driver_->pwritev(offset, iov, {.placement = placement});
  }

  const PlacementTurn turn(placement);
  const uint64_t largest = direct ? limits_.max_transfer : std::min(limits_.max_transfer, kBounceBytes);
  AlignedBuffer bounce(direct ? 0 : std::min(largest, iov.size()));
  for (uint64_t done = 0; done < iov.size();) {
    const uint64_t step = std::min(largest, iov.size() - done);
    if (direct) {
      COIMG_TRY(driver_->pwritev(offset + done, iov.slice(done, step), {}));
    } else {
      const auto memory = bounce.span().first(step);
      iov.copy_to(done, memory);
      COIMG_TRY(driver_->pwritev(offset + done, IoVector(memory), {}));
    }
    done += step;
  }
  return {};
}

// --- zeroes and discards -------------------------------------------------------------------------------------------

Result<void> BlockNode::co_pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions& options) {
  COIMG_TRY(check_request(offset, bytes, true));
  if (bytes == 0) return {};
  // Whole clusters in one call. What is left at the ends is apart, since only that may have to be written out. An end
  // that is the image's completes the last cluster.
  const uint64_t end = offset + bytes;
  const uint64_t alignment = std::max<uint64_t>(limits_.zero_alignment, limits_.request_alignment);
  const uint64_t body = std::min(align_up(offset, alignment), end);
  const uint64_t tail = !is_protocol_ && end == length() ? end : std::max(align_down(end, alignment), body);

  if (body == end || (body == offset && tail == end)) {
    COIMG_TRY(locate(zero_piece(offset, bytes, options), offset));
  } else {
    const PlacementTurn turn(options.placement);
    ZeroOptions part = options;
    part.placement = nullptr;
    if (offset < body) COIMG_TRY(locate(zero_piece(offset, body - offset, part), offset));
    if (body < tail) COIMG_TRY(locate(zero_piece(body, tail - body, part), body));
    if (tail < end) COIMG_TRY(locate(zero_piece(tail, end - tail, part), tail));
  }
  return end_of_write(false);
}

/// Zeroes a range by the driver or else by hand.
Result<void> BlockNode::zero_piece(uint64_t offset, uint64_t bytes, const ZeroOptions& options) {
  Result<void> result = Error(ENOTSUP, "the range is not aligned for zeroing it efficiently");
  if (Padding(offset, bytes, limits_.request_alignment).empty()) {
    const bool is_protected = touches_protected_sector(offset);
    // A protected sector is looked at as a whole; it ends inside the image, which is made of sectors.
    const uint64_t tracked_start = is_protected ? 0 : offset;
    const uint64_t tracked_end = is_protected ? std::max(offset + bytes, kSectorSize) : offset + bytes;
    const TrackedRequest request(tracker_, tracked_start, tracked_end - tracked_start,
                                 is_protected ? RangeMode::kExclusive : RangeMode::kShared);
    if (is_protected) COIMG_TRY(check_format_change(offset, bytes, nullptr));
    debug_event(DebugEvent::kPwritevZero);
    result = driver_->pwrite_zeroes(offset, bytes, options);
    debug_event(DebugEvent::kPwritevDone);
    ++write_generation_;
  }
  if (result.ok() || result.error().errnum() != ENOTSUP || options.no_fallback) return result;
  const PlacementTurn turn(options.placement);
  return write_zero_buffers(offset, bytes);
}

/// Sleeps until so much may be written.
void BlockNode::take_rate(uint64_t bytes) {
  if (rate_limiter_) rate_limiter_->take(bytes);
  if (shared_rate_limiter_) shared_rate_limiter_->take(bytes);
}

Result<void> BlockNode::write_zero_buffers(uint64_t offset, uint64_t bytes) {
  const uint64_t end = offset + bytes;
  while (offset < end) {
    // Up to a multiple of the buffer's size, so that only the first and the last write can be unaligned.
    const uint64_t step = std::min(align_down(offset, sizeof(zero_buffer)) + sizeof(zero_buffer), end) - offset;
    take_rate(step);
    COIMG_TRY(write_bytes(offset, IoVector(std::span<const std::byte>(zero_buffer).first(step)), nullptr));
    offset += step;
  }
  return {};
}

Result<void> BlockNode::co_reserve(std::span<const ByteRange> ranges) {
  assert(driver_ && !closed_);
  if (!flags_.writable) return Error(EACCES, "image is read-only");
  return driver_->reserve(ranges).in_file(filename_);
}

Result<void> BlockNode::co_pdiscard(uint64_t offset, uint64_t bytes) {
  assert(driver_ && !closed_);
  if (!flags_.writable) return Error(EACCES, "image is read-only");
  if (offset >= length()) return {};
  const uint64_t alignment = std::max<uint64_t>({limits_.discard_alignment, limits_.request_alignment, kSectorSize});
  const uint64_t start = align_up(offset, alignment);
  const uint64_t asked_end = offset + std::min(bytes, length() - offset);
  const uint64_t end = asked_end == length() ? asked_end : align_down(asked_end, alignment);
  if (start >= end) return {};

  const TrackedRequest request(tracker_, start, end - start, RangeMode::kShared);
  auto result = driver_->pdiscard(start, end - start);
  ++write_generation_;
  if (!result.ok() && result.error().errnum() == ENOTSUP) return {};
  return locate(std::move(result), start);
}

// --- probed raw images ---------------------------------------------------------------------------------------------

bool BlockNode::touches_protected_sector(uint64_t offset) const { return protect_registry_ && offset < kSectorSize; }

/// Refuses a change of the first sector after which probing would find another format: the guest of a raw image must
/// not choose how its host will read it. `iov` null stands for zeros. Locks: the caller holds the sector exclusively.
Result<void> BlockNode::check_format_change(uint64_t offset, uint64_t bytes, const IoVector* iov) {
  std::array<std::byte, kSectorSize> sector{};
  const std::span whole(sector);
  COIMG_TRY(co_pread(0, whole.first(std::min(length(), kSectorSize))));
  const auto changed = whole.subspan(offset, std::min(bytes, kSectorSize - offset));
  if (iov) {
    iov->copy_to(0, changed);
  } else {
    std::ranges::fill(changed, std::byte{0});
  }
  const auto found = protect_registry_->probe(sector);
  if (found.ok() && *found == &type()) return {};
  return Error::from_errno(EPERM).with_hint(
      "Writing this to block 0 would turn the probed raw image into one of another format.\n"
      "Specify the 'raw' format explicitly to allow it.\n");
}

}  // namespace coimg
