// Workers take chunks in guest order and read them side by side. What follows from the order is done in turns: joining
// the digests of pieces, or all of the hashing where there is but one digest. A worker that has to wait for its turn
// reads no further, which bounds memory.
#include "block/checksum.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "block/chunk_queue.h"
#include "block/transfer_size.h"
#include "block/tree_digest.h"
#include "block/util/math.h"
#include "block/util/page_buffer.h"
#include "coroutine/co_group.h"
#include "coroutine/worker_pool.h"

namespace coimg {

namespace {

constexpr uint64_t kPieceBytes = TreeDigest::kPieceBytes;
// Zeros are hashed in steps of this, where they have to be hashed.
constexpr uint64_t kZeroStepBytes = 16 * kMiB;

/// How the content of the disk comes to a digest.
class Summary {
 public:
  virtual ~Summary() = default;
  Summary() = default;
  Summary(const Summary&) = delete;
  Summary& operator=(const Summary&) = delete;

  /// Adds a chunk that starts with a piece. Waits for the ticket's turn.
  virtual void add(std::span<const std::byte> chunk, PlacementOrder::Ticket& ticket) coroutine_fn = 0;
  virtual void add_zeros(uint64_t bytes, PlacementOrder::Ticket& ticket) coroutine_fn = 0;
  virtual Digest finish(uint64_t length) = 0;
};

class TreeSummary final : public Summary {
 public:
  explicit TreeSummary(DigestAlgorithm algorithm) : tree_(algorithm) {}

  void add(std::span<const std::byte> chunk, PlacementOrder::Ticket& ticket) coroutine_fn override {
    const auto pieces = co_run_on_worker([&] {
      std::vector<Digest> digests;
      for (auto rest = chunk; !rest.empty(); rest = rest.subspan(std::min(rest.size(), kPieceBytes))) {
        digests.push_back(tree_.piece(rest.first(std::min(rest.size(), kPieceBytes))));
      }
      return digests;
    });
    ticket.wait_turn();
    for (const Digest& piece : pieces) tree_.append(piece);
  }
  void add_zeros(uint64_t bytes, PlacementOrder::Ticket& ticket) coroutine_fn override {
    ticket.wait_turn();
    tree_.append_zeros(div_ceil(bytes, kPieceBytes));
  }
  Digest finish(uint64_t length) override { return tree_.finish(length); }

 private:
  TreeDigest tree_;
};

class FlatSummary final : public Summary {
 public:
  explicit FlatSummary(DigestAlgorithm algorithm) : hasher_(algorithm) {}

  void add(std::span<const std::byte> chunk, PlacementOrder::Ticket& ticket) coroutine_fn override {
    ticket.wait_turn();
    co_run_on_worker([&] { hasher_.update(chunk); });
  }
  void add_zeros(uint64_t bytes, PlacementOrder::Ticket& ticket) coroutine_fn override {
    ticket.wait_turn();
    co_run_on_worker([&] {
      static const std::vector<std::byte> zeros(kMiB);
      for (; bytes > 0; bytes -= std::min<uint64_t>(bytes, zeros.size())) {
        hasher_.update(std::span(zeros).first(std::min<uint64_t>(bytes, zeros.size())));
      }
    });
  }
  Digest finish(uint64_t) override { return hasher_.finish(); }

 private:
  Hasher hasher_;
};

class ChecksumJob {
 public:
  ChecksumJob(BlockNode& node, const ChecksumOptions& options)
      : source_({&node}),
        options_(options),
        size_(transfer_size(
            {.unit = kPieceBytes, .decode_unit = node.chain_compression_unit(), .most_workers = options.workers})),
        chunks_(source_,
                {.granularity = kPieceBytes,
                 .chunk_bytes = size_.chunk_bytes,
                 .idle_chunk_bytes = options.flat ? kZeroStepBytes : align_down(kMaxFileOffset, kPieceBytes)}) {
    if (options.flat) {
      summary_ = std::make_unique<FlatSummary>(options.algorithm);
    } else {
      summary_ = std::make_unique<TreeSummary>(options.algorithm);
    }
  }

  Result<Digest> run() coroutine_fn {
    for (unsigned i = 0; i < size_.workers; ++i) {
      group_.start([this]() coroutine_fn { return work(); }, "checksum worker");
    }
    COIMG_TRY(group_.wait_all());
    return summary_->finish(source_.length());
  }

 private:
  Result<void> work() coroutine_fn {
    PageBuffer buffer(size_.chunk_bytes);
    while (!group_.should_stop()) {
      if (options_.should_stop && options_.should_stop()) return Error::from_errno(ECANCELED);
      auto item = COIMG_TRY(chunks_.take());
      if (!item) break;
      const CopyChunk& chunk = item->chunk;
      if (chunk.only(CopyKind::kZero)) {
        summary_->add_zeros(chunk.bytes, item->ticket);
      } else {
        COIMG_TRY(source_.read_chunk(chunk, IoVector(buffer, buffer.span().first(chunk.bytes))));
        summary_->add(buffer.span().first(chunk.bytes), item->ticket);
        if (buffer.take_lost()) return lost_pages();
      }
      done_ += chunk.bytes;
      if (options_.on_progress) options_.on_progress(done_, source_.length());
    }
    return {};
  }

  SourceSequence source_;
  const ChecksumOptions& options_;
  const TransferSize size_;
  std::unique_ptr<Summary> summary_;

  ChunkQueue chunks_;
  CoTryGroup<Result<void>> group_;
  uint64_t done_ = 0;
};

}  // namespace

Result<Digest> co_checksum(BlockNode& node, const ChecksumOptions& options) {
  ChecksumJob job(node, options);
  return job.run();
}

}  // namespace coimg
