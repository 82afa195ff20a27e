// Workers take chunks of the sources in guest order. Once one has found a difference no more are taken; those that are
// being compared may still turn up an earlier one.
#include "block/verify.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "block/chunk_queue.h"
#include "block/transfer_size.h"
#include "block/util/math.h"
#include "block/util/page_buffer.h"
#include "coroutine/co_group.h"
#include "coroutine/co_sleep.h"
#include "coroutine/worker_pool.h"

namespace coimg {

namespace {

// Requests begin at multiples of this, which suits every O_DIRECT.
constexpr uint64_t kUnit = 64 * kKiB;
// After so many steps a worker lets the event loop run.
constexpr unsigned kStepsPerTurn = 64;

uint64_t largest_compression_unit(const std::vector<BlockNode*>& sources, const BlockNode& target) {
  uint64_t largest = target.chain_compression_unit();
  for (const BlockNode* source : sources) largest = std::max(largest, source->chain_compression_unit());
  return largest;
}

class VerifyJob {
 public:
  VerifyJob(const std::vector<BlockNode*>& sources, BlockNode& target, const VerifyOptions& options)
      : sources_(sources),
        target_({&target}, 0, sources_.length()),
        options_(options),
        size_(transfer_size({.unit = kUnit,
                             .decode_unit = largest_compression_unit(sources, target),
                             .buffers = 2,
                             .most_workers = options.workers})),
        chunks_(sources_, {.granularity = kUnit,
                           .chunk_bytes = size_.chunk_bytes,
                           .idle_chunk_bytes = align_down(kMaxFileOffset, kUnit)}) {}

  Result<std::optional<uint64_t>> run() coroutine_fn {
    for (unsigned i = 0; i < size_.workers; ++i) {
      group_.start([this]() coroutine_fn { return work(); }, "verify worker");
    }
    COIMG_TRY(group_.wait_all());
    return first_difference_;
  }

 private:
  Result<void> work() coroutine_fn {
    PageBuffer expected(size_.chunk_bytes), found(size_.chunk_bytes);
    while (!group_.should_stop() && !first_difference_) {
      const auto item = COIMG_TRY(chunks_.take());
      if (!item) break;
      const CopyChunk& chunk = item->chunk;
      if (chunk.only(CopyKind::kZero)) {
        COIMG_TRY(check_zeros(chunk.offset, chunk.bytes, found));
      } else {
        COIMG_TRY(check_chunk(chunk, expected, found));
        COIMG_TRY(note_done(chunk.bytes));
      }
    }
    return {};
  }

  /// The target may have stored zeros where the sources have none to read.
  Result<void> check_zeros(uint64_t offset, uint64_t bytes, PageBuffer& memory) coroutine_fn {
    const uint64_t end = offset + bytes;
    while (offset < end && !(first_difference_ && *first_difference_ < offset)) {
      const CopyRun run = COIMG_TRY(
          target_.run_at(offset, end - offset, /*top_layer_only=*/false)
              .with_context("error while reading the target's block status at offset " + std::to_string(offset)));
      const bool is_data = run.kind == CopyKind::kData;
      // Ends where chunks do: reads of compressed clusters are not to be split, nor those of O_DIRECT.
      const uint64_t limit = is_data ? align_down(offset, size_.chunk_bytes) + size_.chunk_bytes - offset : run.bytes;
      const uint64_t step = std::min(run.bytes, limit);
      if (is_data) {
        const auto part = memory.span().first(step);
        COIMG_TRY(read_target(offset, IoVector(memory, part)));
        const auto difference = co_run_on_worker([&] { return std::ranges::find_if(part, is_set) - part.begin(); });
        if (memory.take_lost()) return lost_pages();
        if (static_cast<uint64_t>(difference) != step) note_difference(offset + static_cast<uint64_t>(difference));
      }
      offset += step;
      COIMG_TRY(note_done(step));
    }
    return {};
  }

  static bool is_set(std::byte byte) { return byte != std::byte{0}; }

  Result<void> check_chunk(const CopyChunk& chunk, PageBuffer& expected_pages, PageBuffer& found_pages) coroutine_fn {
    const auto expected = expected_pages.span().first(chunk.bytes);
    const auto found = found_pages.span().first(chunk.bytes);
    COIMG_TRY(sources_.read_chunk(chunk, IoVector(expected_pages, expected)));
    COIMG_TRY(read_target(chunk.offset, IoVector(found_pages, found)));
    const auto difference = co_run_on_worker([&]() -> uint64_t {
      if (std::memcmp(expected.data(), found.data(), found.size()) == 0) return found.size();
      return static_cast<uint64_t>(std::ranges::mismatch(expected, found).in1 - expected.begin());
    });
    const bool expected_lost = expected_pages.take_lost(), found_lost = found_pages.take_lost();
    if (expected_lost || found_lost) return lost_pages();
    if (difference != found.size()) note_difference(chunk.offset + difference);
    return {};
  }

  Result<void> read_target(uint64_t offset, const IoVector& memory) coroutine_fn {
    return target_.read(offset, memory)
        .with_context("error while reading back the target at byte " + std::to_string(offset));
  }

  void note_difference(uint64_t offset) {
    first_difference_ = std::min(first_difference_.value_or(UINT64_MAX), offset);
  }

  Result<void> note_done(uint64_t bytes) coroutine_fn {
    done_ += bytes;
    if (options_.on_progress) options_.on_progress(done_, sources_.length());
    if (++steps_ % kStepsPerTurn == 0) co_sleep_ns(ClockType::kMonotonic, 0);
    if (options_.should_stop && options_.should_stop()) return Error::from_errno(ECANCELED);
    return {};
  }

  SourceSequence sources_, target_;
  const VerifyOptions& options_;
  const TransferSize size_;

  ChunkQueue chunks_;
  CoTryGroup<Result<void>> group_;
  std::optional<uint64_t> first_difference_;
  uint64_t done_ = 0;
  unsigned steps_ = 0;
};

}  // namespace

Result<std::optional<uint64_t>> co_verify(const std::vector<BlockNode*>& sources, BlockNode& target,
                                          const VerifyOptions& options) {
  VerifyJob job(sources, target, options);
  return job.run();
}

}  // namespace coimg
