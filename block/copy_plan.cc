#include "block/copy_plan.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <string>

#include "block/util/math.h"

namespace coimg {

void append_run(CopyChunk& chunk, const CopyRun& run) {
  if (!chunk.runs.empty() && chunk.runs.back().kind == run.kind) {
    chunk.runs.back().bytes += run.bytes;
  } else {
    chunk.runs.push_back(run);
  }
  chunk.bytes += run.bytes;
}

SourceSequence::SourceSequence(const std::vector<BlockNode*>& nodes, uint64_t offset, uint64_t bytes) {
  for (BlockNode* node : nodes) {
    const uint64_t first = std::min(offset, node->length());
    const uint64_t taken = std::min(node->length() - first, bytes - length_);
    offset -= first;
    if (taken == 0) continue;
    members_.push_back({node, length_, first, taken});
    length_ += taken;
  }
}

const SourceSequence::Member& SourceSequence::member_at(uint64_t offset) const {
  assert(offset < length_);
  auto behind = std::upper_bound(members_.begin(), members_.end(), offset,
                                 [](uint64_t position, const Member& member) { return position < member.start; });
  return *std::prev(behind);
}

Result<CopyRun> SourceSequence::run_at(uint64_t offset, uint64_t bytes, bool top_layer_only, const BlockNode* above) {
  const Member& member = member_at(offset);
  const uint64_t inside = offset - member.start;
  bytes = std::min(bytes, member.bytes - inside);
  CopyRun run{CopyKind::kData, offset, 0};
  BlockStatus status;
  if (top_layer_only && above == nullptr) {
    status = COIMG_TRY(member.node->co_block_status(member.first + inside, bytes));
  } else {
    status = COIMG_TRY(member.node->co_chain_status(member.first + inside, bytes, above)).status;
  }
  run.bytes = status.bytes;
  if (top_layer_only && above == nullptr && !status.allocated) {
    // Where the source has nothing below, its guest sees zeros, and the target's would see its backing file.
    const BlockNode* const below = member.node->backing();
    const uint64_t below_end = below != nullptr ? below->length() : 0;
    const uint64_t at = member.first + inside;
    if (at >= below_end) {
      run.kind = CopyKind::kZero;
      return run;
    }
    run.bytes = std::min(run.bytes, below_end - at);
  }
  // Of several top layers a short one hides what lies below its end: that is zeros and not left alone.
  const bool hidden = above != nullptr && status.zero;
  if (top_layer_only && !status.allocated && !hidden) {
    run.kind = CopyKind::kLeave;
  } else if (status.zero) {
    run.kind = CopyKind::kZero;
  }
  return run;
}

Result<void> SourceSequence::read(uint64_t offset, const IoVector& memory) {
  for (uint64_t done = 0; done < memory.size();) {
    const Member& member = member_at(offset + done);
    const uint64_t inside = offset + done - member.start;
    const uint64_t bytes = std::min(memory.size() - done, member.bytes - inside);
    COIMG_TRY(member.node->co_preadv(member.first + inside, memory.slice(done, bytes)));
    done += bytes;
  }
  return {};
}

Result<void> SourceSequence::read_run(const CopyRun& run, const IoVector& memory) {
  if (run.kind == CopyKind::kData) {
    return read(run.offset, memory).with_context("error while reading at byte " + std::to_string(run.offset));
  }
  memory.fill(0, memory.size(), std::byte{0});
  return {};
}

Result<void> SourceSequence::read_chunk(const CopyChunk& chunk, const IoVector& memory) {
  for (const CopyRun& run : chunk.runs) {
    COIMG_TRY(read_run(run, memory.slice(run.offset - chunk.offset, run.bytes)));
  }
  return {};
}

Result<std::optional<CopyChunk>> CopyPlan::next() {
  const uint64_t end = sources_.length();
  if (position_ >= end) return std::optional<CopyChunk>();

  CopyChunk chunk{.offset = position_, .bytes = 0, .runs = {}};
  const uint64_t limit = std::min(position_ + settings_.chunk_bytes, end);
  while (position_ + chunk.bytes < limit) {
    const uint64_t at = position_ + chunk.bytes;
    const bool first = chunk.bytes == 0;
    CopyRun run = COIMG_TRY(sources_.run_at(at, first ? std::min(end - at, settings_.idle_chunk_bytes) : limit - at,
                                            settings_.top_layer_only, settings_.above));
    if (run.kind == CopyKind::kData) {
      run.bytes = std::min(run.bytes, limit - at);
    } else if (first) {
      // Nothing to read: the run's whole units are a chunk of their own, the rest starts the next one.
      const uint64_t whole = at + run.bytes == end ? run.bytes : align_down(run.bytes, settings_.granularity);
      if (whole != 0) {
        run.bytes = whole;
        append_run(chunk, run);
        break;
      }
    }
    append_run(chunk, run);
  }
  if (settings_.whole_units) merge_data_units(chunk);
  position_ += chunk.bytes;
  return std::optional(std::move(chunk));
}

/// Widens each data run to whole units, so that a unit is either data or not data at all.
void CopyPlan::merge_data_units(CopyChunk& chunk) const {
  if (chunk.runs.size() == 1) return;
  CopyChunk merged{.offset = chunk.offset, .bytes = 0, .runs = {}};
  const uint64_t end = chunk.offset + chunk.bytes;
  auto run = chunk.runs.begin();
  for (uint64_t unit = chunk.offset; unit < end; unit += settings_.granularity) {
    const uint64_t unit_end = std::min(unit + settings_.granularity, end);
    while (run->offset + run->bytes <= unit) ++run;
    const bool uniform = run->offset + run->bytes >= unit_end;
    append_run(merged, {uniform ? run->kind : CopyKind::kData, unit, unit_end - unit});
  }
  chunk = std::move(merged);
}

}  // namespace coimg
