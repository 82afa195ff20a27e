// Workers take ranges of the overlay in guest order, read both backing files, and write what differs. As in the copy
// engine, a ticket that is taken with the range fixes where its clusters go.
#include "block/rebase_copy.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/transfer_size.h"
#include "block/util/buffer.h"
#include "block/util/math.h"
#include "coroutine/co_group.h"
#include "coroutine/co_mutex.h"

namespace coimg {

namespace {

constexpr std::string_view kOldFailed = "error while reading from old backing file";
constexpr std::string_view kNewFailed = "error while reading from new backing file";

/// The same error with the words that callers know; which file and where stays.
Error relabel(const Error& error, std::string_view text) {
  return Error(error.errnum(), std::string(text)).where(error);
}

/// A range that may differ; each side is known to be zero or has to be read.
struct Range {
  uint64_t offset = 0, bytes = 0;
  bool old_zero = false, new_zero = false;
};

/// The layer below `overlay` that is the same file as `node`; null when there is none.
const BlockNode* find_in_chain(const BlockNode& overlay, const BlockNode* node) {
  if (node == nullptr || !node->file_identity().has_value()) return nullptr;
  for (const BlockNode* below = overlay.backing(); below != nullptr; below = below->backing()) {
    if (below->file_identity() == node->file_identity()) return below;
  }
  return nullptr;
}

uint64_t decode_unit(const BlockNode& overlay, const BlockNode* new_backing) {
  return std::max(overlay.chain_compression_unit(), new_backing ? new_backing->chain_compression_unit() : 0);
}

/// Reads what a backing file shows: zeros behind its end.
Result<void> read_backing(BlockNode* node, uint64_t offset, std::span<std::byte> memory) coroutine_fn {
  const uint64_t length = node != nullptr ? node->length() : 0;
  const uint64_t stored = offset < length ? std::min<uint64_t>(length - offset, memory.size()) : 0;
  std::ranges::fill(memory.subspan(stored), std::byte{0});
  if (stored == 0) return {};
  return node->co_pread(offset, memory.first(stored));
}

class RebaseCopy {
 public:
  RebaseCopy(BlockNode& overlay, BlockNode* new_backing, const RebaseCopyOptions& options)
      : overlay_(overlay),
        new_backing_(new_backing),
        common_(find_in_chain(overlay, new_backing)),
        options_(options),
        unit_(overlay.limits().zero_alignment),
        size_(transfer_size({.unit = unit_,
                             .decode_unit = decode_unit(overlay, new_backing),
                             .buffers = 2,
                             .most_workers = options.workers})) {}

  Result<void> run() coroutine_fn {
    for (unsigned i = 0; i < size_.workers; ++i) {
      group_.start([this]() coroutine_fn { work(); }, "rebase worker");
    }
    group_.wait_all();
    if (error_) return *std::move(error_);
    return {};
  }

 private:
  struct Assignment {
    Range range;
    PlacementOrder::Ticket ticket;
  };

  void work() coroutine_fn {
    AlignedBuffer buffer(2 * size_.chunk_bytes);
    while (!group_.should_stop()) {
      auto step = do_next_range(buffer.span());
      if (!step.ok()) {
        if (!error_) error_ = std::move(step).error();
        group_.stop();
      } else if (!*step) {
        return;
      }
    }
  }

  /// Returns false when there is nothing left to do.
  Result<bool> do_next_range(std::span<std::byte> memory) coroutine_fn {
    std::optional<Assignment> assignment = COIMG_TRY(take_range());
    if (!assignment) return false;
    if (!group_.should_stop()) COIMG_TRY(copy_range(assignment->range, memory, assignment->ticket));
    return true;
  }

  Result<std::optional<Assignment>> take_range() coroutine_fn {
    const CoMutexGuard guard(plan_lock_);
    while (position_ < overlay_.length()) {
      if (options_.should_stop && options_.should_stop()) return Error::from_errno(ECANCELED);
      if (options_.on_progress) options_.on_progress(position_, overlay_.length());
      const auto range = COIMG_TRY(plan_range_locked());
      if (range) return std::optional<Assignment>(Assignment{*range, PlacementOrder::Ticket(order_)});
    }
    return std::optional<Assignment>();
  }

  /// Looks at what begins at the position and goes on behind it. Nothing when that stays as it is.
  Result<std::optional<Range>> plan_range_locked() coroutine_fn CO_REQUIRES(plan_lock_) {
    const uint64_t offset = position_;
    const BlockStatus own = COIMG_TRY(overlay_.co_block_status(offset, overlay_.length() - offset)
                                          .with_context("error while reading image metadata"));
    Range range{.offset = offset, .bytes = own.bytes};
    bool unchanged = own.allocated;
    if (!unchanged) unchanged = COIMG_TRY(look_up_old(range));
    if (!unchanged) {
      COIMG_TRY(look_up_new(range));
      unchanged = range.old_zero && range.new_zero;
    }
    if (unchanged) {
      position_ += range.bytes;
      return std::optional<Range>();
    }
    // Ends where clusters do, compressed ones too: none is copied or decoded twice.
    range.bytes = std::min(range.bytes, size_.chunk_bytes - offset % size_.chunk_bytes);
    position_ += range.bytes;
    return std::optional(range);
  }

  /// Returns whether the range comes from the layer that stays.
  Result<bool> look_up_old(Range& range) coroutine_fn {
    BlockNode* const below = overlay_.backing();
    range.old_zero = below == nullptr || range.offset >= below->length();
    if (range.old_zero) return false;
    range.bytes = std::min(range.bytes, below->length() - range.offset);
    if (below == common_) return true;
    const auto found = below->co_chain_status(range.offset, range.bytes, common_);
    if (!found.ok()) return relabel(found.error(), kOldFailed);
    range.bytes = found->status.bytes;
    range.old_zero = found->status.zero;
    return common_ != nullptr && !found->status.allocated && !found->status.zero;
  }

  Result<void> look_up_new(Range& range) coroutine_fn {
    const uint64_t length = new_backing_ != nullptr ? new_backing_->length() : 0;
    range.new_zero = range.offset >= length;
    if (range.new_zero) return {};
    const auto found = new_backing_->co_chain_status(range.offset, std::min(range.bytes, length - range.offset));
    if (!found.ok()) return relabel(found.error(), kNewFailed);
    range.bytes = found->status.bytes;
    range.new_zero = found->status.zero;
    return {};
  }

  Result<void> copy_range(const Range& range, std::span<std::byte> memory, PlacementOrder::Ticket& ticket)
      coroutine_fn {
    const auto old_bytes = memory.first(range.bytes);
    const auto new_bytes = memory.subspan(size_.chunk_bytes, range.bytes);
    auto read = read_backing(range.old_zero ? nullptr : overlay_.backing(), range.offset, old_bytes);
    if (!read.ok()) return relabel(read.error(), kOldFailed);
    read = read_backing(range.new_zero ? nullptr : new_backing_, range.offset, new_bytes);
    if (!read.ok()) return relabel(read.error(), kNewFailed);
    return write_pieces(find_differences(range.offset, old_bytes, new_bytes), range.offset, old_bytes, ticket);
  }

  struct Piece {
    uint64_t offset, bytes;
    bool zero;
  };

  /// The clusters, or what of them lies in the range, that differ.
  [[nodiscard]] std::vector<Piece> find_differences(uint64_t offset, std::span<const std::byte> old_bytes,
                                                    std::span<const std::byte> new_bytes) const {
    std::vector<Piece> pieces;
    for (uint64_t at = 0; at < old_bytes.size();) {
      const uint64_t bytes = std::min(unit_ - (offset + at) % unit_, old_bytes.size() - at);
      const auto content = old_bytes.subspan(at, bytes);
      if (std::memcmp(content.data(), new_bytes.data() + at, bytes) != 0) {
        const bool zero = is_zero(content);
        if (!pieces.empty() && pieces.back().zero == zero &&
            pieces.back().offset + pieces.back().bytes == offset + at) {
          pieces.back().bytes += bytes;
        } else {
          pieces.push_back({offset + at, bytes, zero});
        }
      }
      at += bytes;
    }
    return pieces;
  }

  Result<void> write_pieces(const std::vector<Piece>& pieces, uint64_t offset, std::span<const std::byte> content,
                            PlacementOrder::Ticket& ticket) coroutine_fn {
    size_t left = pieces.size();
    for (const Piece& piece : pieces) {
      ticket.keep(--left != 0);
      Result<void> written;
      if (piece.zero) {
        written = overlay_.co_pwrite_zeroes(piece.offset, piece.bytes, {.placement = &ticket});
      } else {
        const IoVector iov(content.subspan(piece.offset - offset, piece.bytes));
        written = overlay_.co_pwritev(piece.offset, iov, {.placement = &ticket});
      }
      COIMG_TRY(std::move(written).with_context("Error while writing to COW image"));
    }
    return {};
  }

  BlockNode& overlay_;
  BlockNode* const new_backing_;
  const BlockNode* const common_;  ///< the new backing file, where it is in the old chain already
  const RebaseCopyOptions& options_;
  const uint64_t unit_;  ///< clusters of the overlay
  const TransferSize size_;

  CoMutex plan_lock_;
  uint64_t position_ CO_GUARDED_BY(plan_lock_) = 0;
  PlacementOrder order_;
  CoGroup group_;
  std::optional<Error> error_;
};

}  // namespace

Result<void> co_copy_difference(BlockNode& overlay, BlockNode* new_backing, const RebaseCopyOptions& options) {
  RebaseCopy copy(overlay, new_backing, options);
  return copy.run();
}

}  // namespace coimg
