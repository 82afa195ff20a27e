#include "block/zero_runs.h"

#include <algorithm>

#include "block/util/buffer.h"
#include "block/util/math.h"

namespace coimg {

uint64_t copy_unit(uint64_t zero_alignment) { return std::max(zero_alignment, kZeroUnit); }

void append_data_runs(std::vector<CopyRun>& runs, uint64_t offset, std::span<const std::byte> memory,
                      const ZeroRunRules& rules) {
  const auto append = [&runs](CopyKind kind, uint64_t at, uint64_t bytes) {
    if (!runs.empty() && runs.back().kind == kind && runs.back().offset + runs.back().bytes == at) {
      runs.back().bytes += bytes;
    } else {
      runs.push_back({kind, at, bytes});
    }
  };
  if (rules.enough == 0) {
    append(CopyKind::kData, offset, memory.size());
    return;
  }
  uint64_t zeros = 0;    // length of the zero run before `at`
  uint64_t missing = 0;  // bytes that the copy's last unit lacks
  const auto close_zero_run = [&](uint64_t at) {
    if (zeros == 0) return;
    append(zeros + missing >= rules.enough ? CopyKind::kZero : CopyKind::kData, offset + at - zeros, zeros);
    zeros = 0;
  };
  for (uint64_t at = 0; at < memory.size();) {
    const uint64_t bytes = std::min(rules.unit - (offset + at) % rules.unit, memory.size() - at);
    if (is_zero(memory.subspan(at, bytes))) {
      zeros += bytes;
    } else {
      close_zero_run(at);
      append(CopyKind::kData, offset + at, bytes);
    }
    at += bytes;
  }
  const uint64_t end = offset + memory.size();
  if (end == rules.end) missing = align_up(end, rules.unit) - end;
  close_zero_run(memory.size());
}

}  // namespace coimg
