#include "block/copy_forecast.h"

#include <optional>
#include <span>
#include <vector>

#include "block/copy.h"
#include "block/copy_plan.h"
#include "block/transfer_size.h"
#include "block/util/math.h"
#include "block/util/page_buffer.h"
#include "block/zero_runs.h"
#include "coroutine/co_sleep.h"

namespace coimg {

namespace {

// After so many chunks the event loop runs.
constexpr unsigned kChunksPerTurn = 64;

}  // namespace

uint64_t copy_write_bytes(const BlockNode* source, uint64_t zero_alignment) {
  return transfer_size({.unit = copy_unit(zero_alignment),
                        .least_bytes = CopyOptions().sparse_bytes,
                        .decode_unit = source != nullptr ? source->chain_compression_unit() : 0})
      .chunk_bytes;
}

Result<void> co_forecast_copy(BlockNode& source, uint64_t zero_alignment, bool read_data, const WriteVisitor& visit) {
  const CopyOptions defaults;
  const uint64_t unit = copy_unit(zero_alignment);
  const uint64_t chunk_bytes = copy_write_bytes(&source, zero_alignment);
  SourceSequence sources({&source});
  CopyPlan plan(sources, {.granularity = unit,
                          .chunk_bytes = chunk_bytes,
                          .idle_chunk_bytes = align_down(kMaxFileOffset, unit),
                          .whole_units = true});
  PageBuffer memory(read_data ? chunk_bytes : 0);
  for (unsigned chunks = 0;; ++chunks) {
    const std::optional<CopyChunk> chunk = COIMG_TRY(plan.next());
    if (!chunk) return {};
    if (chunks % kChunksPerTurn == 0) co_sleep_ns(ClockType::kMonotonic, 0);
    if (chunk->only(CopyKind::kZero)) continue;
    std::vector<CopyRun> runs = chunk->runs;
    if (read_data) {
      const auto read = memory.span().first(chunk->bytes);
      COIMG_TRY(sources.read_chunk(*chunk, IoVector(memory, read)));
      runs.clear();
      append_data_runs(runs, chunk->offset, read,
                       {.unit = unit, .enough = defaults.sparse_bytes, .end = sources.length()});
      if (memory.take_lost()) return lost_pages();
    }
    for (const CopyRun& run : runs) {
      if (run.kind == CopyKind::kData) COIMG_TRY(visit(run.offset, run.bytes));
    }
  }
}

}  // namespace coimg
