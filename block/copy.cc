// The copy engine. Worker coroutines take chunks from one plan in guest order; each reads its chunk, looks for zeros
// and writes what is left. With in_order, a ticket taken together with the chunk fixes the place of its clusters, so
// the target's layout does not depend on which read finishes first.
#include "block/copy.h"

#include <algorithm>
#include <optional>

#include "block/chunk_queue.h"
#include "block/transfer_size.h"
#include "block/util/buffer.h"
#include "block/util/math.h"
#include "block/util/page_buffer.h"
#include "block/zero_runs.h"
#include "coroutine/co_group.h"
#include "coroutine/co_sleep.h"

namespace coimg {

namespace {

// What is zeroed in one step: long enough to cost nothing, short enough to be interrupted.
constexpr uint64_t kMaxZeroStep = kGiB;
// After so many of these steps the event loop runs.
constexpr uint64_t kZeroStepsPerTurn = 64;

uint64_t largest_compression_unit(const std::vector<BlockNode*>& sources) {
  uint64_t largest = 0;
  for (const BlockNode* source : sources) largest = std::max(largest, source->chain_compression_unit());
  return largest;
}

/// Whether the target writes to a file that a source reads, as into another part of the same one.
bool share_a_file(const std::vector<BlockNode*>& sources, const BlockNode& target) {
  for (const BlockNode* node : std::initializer_list<const BlockNode*>{&target, target.data_file()}) {
    const auto identity = node != nullptr ? node->file_identity() : std::nullopt;
    if (!identity) continue;
    if (std::ranges::any_of(sources, [&](const BlockNode* source) { return source->chain_has_file(*identity); })) {
      return true;
    }
  }
  return false;
}

/// Whether what is read may be mapped. It must not change while the target is written; compressors do not expect that
/// either. And pages that are found to be lost are too much for who wants to know each bad sector.
bool may_map(const std::vector<BlockNode*>& sources, const BlockNode& target, const CopyOptions& options) {
  return !options.compress && !options.salvage && !share_a_file(sources, target);
}

class CopyJob {
 public:
  CopyJob(const std::vector<BlockNode*>& sources, BlockNode& target, const CopyOptions& options)
      : sources_(sources, options.window.offset, options.window.bytes),
        target_(target),
        options_(options),
        may_map_(may_map(sources, target, options)),
        unit_(copy_unit(target.limits().zero_alignment)),
        size_(transfer_size({.unit = unit_,
                             .least_bytes = options.sparse_bytes,
                             .decode_unit = largest_compression_unit(sources),
                             .buffers = (options.compress ? 2U : 1U) + (options.leave_equal ? 1U : 0U),
                             .most_workers = options.workers})),
        chunks_(sources_,
                // What the target's backing file shows is left alone to the cluster.
                {.granularity = options.compress && options.target_has_backing ? target.limits().zero_alignment : unit_,
                 .chunk_bytes = size_.chunk_bytes,
                 .idle_chunk_bytes = options.store_zeros ? size_.chunk_bytes : align_down(kMaxFileOffset, unit_),
                 .top_layer_only = options.target_has_backing,
                 .above = options.above,
                 .whole_units = options.compress}) {}

  Result<void> run() coroutine_fn {
    for (unsigned i = 0; i < size_.workers; ++i) {
      group_.start([this]() coroutine_fn { work(); }, "copy worker");
    }
    group_.wait_all();
    if (error_) return *std::move(error_);
    return {};
  }

 private:
  /// Memory of a worker.
  struct Buffers {
    PageBuffer source;
    AlignedBuffer target;  ///< with leave_equal
  };

  void work() coroutine_fn {
    Buffers buffers{.source = PageBuffer(size_.chunk_bytes),
                    .target = AlignedBuffer(options_.leave_equal ? size_.chunk_bytes : 0)};
    while (!group_.should_stop()) {
      auto step = do_next_chunk(buffers);
      if (!step.ok()) {
        fail(std::move(step).error());
      } else if (!*step) {
        return;
      }
    }
  }

  /// Returns false when there is nothing left to do.
  Result<bool> do_next_chunk(Buffers& buffers) coroutine_fn {
    if (options_.should_stop && options_.should_stop()) return Error::from_errno(ECANCELED);
    std::optional<ChunkQueue::Item> item = COIMG_TRY(chunks_.take());
    if (!item) return false;
    CopyChunk& chunk = item->chunk;
    PlacementOrder::Ticket* ticket = options_.in_order ? &item->ticket : nullptr;

    if (group_.should_stop()) return true;
    if (chunk.runs.size() == 1 && is_idle(chunk.runs[0])) {
      COIMG_TRY(do_idle_run(chunk.runs[0], ticket));
    } else {
      COIMG_TRY(copy_chunk(chunk, buffers, ticket));
      note_done(chunk.bytes);
    }
    return true;
  }

  /// Nothing is read for the run, which may be as long as the disk.
  [[nodiscard]] bool is_idle(const CopyRun& run) const {
    return run.kind == CopyKind::kLeave || (run.kind == CopyKind::kZero && !options_.store_zeros);
  }

  Result<void> do_idle_run(const CopyRun& run, PlacementOrder::Ticket* ticket) coroutine_fn {
    const bool writes = run.kind == CopyKind::kZero && !options_.target_is_zero;
    const uint64_t step = writes ? kMaxZeroStep : run.bytes;
    for (uint64_t done = 0; done < run.bytes; done += step) {
      if (options_.should_stop && options_.should_stop()) return Error::from_errno(ECANCELED);
      const CopyRun part{run.kind, run.offset + done, std::min(step, run.bytes - done)};
      if (ticket) ticket->keep(done + part.bytes < run.bytes);
      COIMG_TRY(write_zero_run(part, ticket));
      note_done(part.bytes);
      if (done % (kZeroStepsPerTurn * kMaxZeroStep) == 0) co_sleep_ns(ClockType::kMonotonic, 0);
    }
    return {};
  }

  void note_done(uint64_t bytes) coroutine_fn {
    done_ += bytes;
    if (options_.on_progress) options_.on_progress(done_, sources_.length());
  }

  Result<void> copy_chunk(CopyChunk& chunk, Buffers& buffers, PlacementOrder::Ticket* ticket) coroutine_fn {
    const std::span<std::byte> memory = buffers.source.span().first(chunk.bytes);
    const IoVector iov = may_map_ ? IoVector(buffers.source, memory) : IoVector(memory);
    for (const CopyRun& run : chunk.runs) {
      COIMG_TRY(read_run(run, iov.slice(run.offset - chunk.offset, run.bytes),
                         memory.subspan(run.offset - chunk.offset, run.bytes)));
    }
    if (options_.leave_equal) COIMG_TRY(leave_equal_units(chunk, memory, buffers.target.span().first(chunk.bytes)));
    auto written = write_runs(plan_writes(chunk, memory), chunk.offset, memory, ticket);
    const bool unreadable = !written.ok() && written.error().errnum() == EFAULT;  // what the kernel says of lost pages
    if (buffers.source.take_lost() || unreadable) {
      return lost_pages().with_context("error while reading at byte " + std::to_string(chunk.offset));
    }
    return written;
  }

  /// Takes from the runs what the target shows already, cluster by cluster: there it stays with its backing file.
  Result<void> leave_equal_units(CopyChunk& chunk, std::span<const std::byte> memory, std::span<std::byte> shown)
      coroutine_fn {
    CopyChunk rest{.offset = chunk.offset, .bytes = 0, .runs = {}};
    for (const CopyRun& run : chunk.runs) {
      if (run.kind == CopyKind::kLeave) {
        append_run(rest, run);
        continue;
      }
      const auto read = shown.subspan(run.offset - chunk.offset, run.bytes);
      COIMG_TRY(target_.co_pread(run.offset, read)
                    .with_context("error while reading the target at byte " + std::to_string(run.offset)));
      for (uint64_t at = run.offset; at < run.offset + run.bytes;) {
        const uint64_t bytes = std::min(unit_ - at % unit_, run.offset + run.bytes - at);
        const bool equal =
            std::memcmp(memory.data() + (at - chunk.offset), shown.data() + (at - chunk.offset), bytes) == 0;
        append_run(rest, {equal ? CopyKind::kLeave : run.kind, at, bytes});
        at += bytes;
      }
    }
    chunk = std::move(rest);
    return {};
  }

  Result<void> read_run(const CopyRun& run, const IoVector& iov, std::span<std::byte> memory) coroutine_fn {
    auto read = sources_.read_run(run, iov);
    return read.ok() || !options_.salvage ? std::move(read) : salvage(run.offset, memory);
  }

  /// Reads sector by sector; those that cannot be read become zeros.
  Result<void> salvage(uint64_t offset, std::span<std::byte> memory) coroutine_fn {
    for (uint64_t at = 0; at < memory.size(); at += kSectorSize) {
      const auto sector = memory.subspan(at, std::min<uint64_t>(kSectorSize, memory.size() - at));
      auto read = sources_.read(offset + at, IoVector(sector));
      if (read.ok()) continue;
      std::memset(sector.data(), 0, sector.size());
      if (options_.on_warning) {
        options_.on_warning("error while reading at byte " + std::to_string(offset + at) + ": " +
                            read.error().message());
      }
    }
    return {};
  }

  /// Splits what was read into runs to write and runs of zeros.
  [[nodiscard]] std::vector<CopyRun> plan_writes(const CopyChunk& chunk, std::span<const std::byte> memory) const {
    std::vector<CopyRun> writes;
    if (!options_.target_has_backing &&
        !options_.leave_equal) {  // all of it is what the guest sees: runs need not end where the source's end
      split_data(writes, chunk.offset, memory, unit_);
      return writes;
    }
    for (const CopyRun& run : chunk.runs) {
      if (run.kind == CopyKind::kZero && options_.store_zeros) {
        writes.push_back({CopyKind::kData, run.offset, run.bytes});
      } else if (run.kind == CopyKind::kData && !options_.compress) {
        split_data(writes, run.offset, memory.subspan(run.offset - chunk.offset, run.bytes), kZeroUnit);
      } else {
        writes.push_back(run);
      }
    }
    return writes;
  }

  void split_data(std::vector<CopyRun>& writes, uint64_t offset, std::span<const std::byte> memory,
                  uint64_t unit) const {
    const uint64_t enough = options_.compress && options_.sparse_bytes != 0 ? unit : options_.sparse_bytes;
    append_data_runs(writes, offset, memory, {.unit = unit, .enough = enough, .end = sources_.length()});
  }

  Result<void> write_runs(const std::vector<CopyRun>& runs, uint64_t offset, std::span<const std::byte> memory,
                          PlacementOrder::Ticket* ticket) coroutine_fn {
    const auto needs_write = [this](const CopyRun& run) {
      return run.kind == CopyKind::kData || (run.kind == CopyKind::kZero && !options_.target_is_zero);
    };
    auto remaining = std::count_if(runs.begin(), runs.end(), needs_write);
    for (const CopyRun& run : runs) {
      if (!needs_write(run)) continue;
      if (ticket) ticket->keep(--remaining != 0);
      if (run.kind == CopyKind::kZero) {
        COIMG_TRY(write_zero_run(run, ticket));
      } else {
        COIMG_TRY(write_data(run.offset, memory.subspan(run.offset - offset, run.bytes), ticket));
      }
    }
    return {};
  }

  Result<void> write_data(uint64_t offset, std::span<const std::byte> memory, PlacementOrder::Ticket* ticket)
      coroutine_fn {
    const IoVector iov(memory);
    const WriteOptions write_options{.placement = ticket, .compression_level = options_.compression_level};
    auto written = options_.compress ? target_.co_pwrite_compressed(offset, iov, write_options)
                                     : target_.co_pwritev(offset, iov, write_options);
    return std::move(written).with_context("error while writing at byte " + std::to_string(offset));
  }

  Result<void> write_zero_run(const CopyRun& run, PlacementOrder::Ticket* ticket) coroutine_fn {
    if (run.kind == CopyKind::kLeave || options_.target_is_zero) return {};
    auto written = target_.co_pwrite_zeroes(run.offset, run.bytes,
                                            {.may_unmap = !options_.target_has_backing, .placement = ticket});
    return std::move(written).with_context("error while writing at byte " + std::to_string(run.offset));
  }

  void fail(Error error) {
    if (!error_) error_ = std::move(error);
    group_.stop();
  }

  SourceSequence sources_;
  BlockNode& target_;
  const CopyOptions& options_;
  const bool may_map_;
  const uint64_t unit_;  ///< target clusters, at least a page
  const TransferSize size_;

  ChunkQueue chunks_;
  CoGroup group_;
  std::optional<Error> error_;
  uint64_t done_ = 0;
};

}  // namespace

Result<void> co_copy(const std::vector<BlockNode*>& sources, BlockNode& target, const CopyOptions& options) {
  CopyJob job(sources, target, options);
  return job.run();
}

}  // namespace coimg
