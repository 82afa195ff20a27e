#include "formats/qcow2/ordered_reads.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "block/util/buffer.h"
#include "coroutine/co_group.h"
#include "coroutine/co_queue.h"

namespace coimg::qcow2 {

Result<void> read_padded(BlockNode& file, HostOffset offset, std::span<std::byte> memory) {
  const uint64_t file_bytes = file.exact_length();
  const size_t inside = offset.v < file_bytes ? std::min<uint64_t>(memory.size(), file_bytes - offset.v) : 0;
  if (inside != 0) COIMG_TRY(file.co_pread(offset.v, memory.first(inside)));
  if (inside < memory.size()) std::memset(memory.data() + inside, 0, memory.size() - inside);
  return {};
}

Result<void> read_in_order(BlockNode& file, unsigned depth, size_t max_bytes, const NextRead& next,
                           const ConsumeRead& consume) {
  CoGroup group;
  CoQueue turn_changed;
  uint64_t jobs_taken = 0, turn = 0;
  Result<void> outcome;

  auto worker = [&]() coroutine_fn {
    AlignedBuffer buffer;
    while (!group.should_stop()) {
      const std::optional<OrderedRead> read = next();
      if (!read) return;
      const uint64_t my_turn = jobs_taken++;
      assert(read->bytes <= max_bytes);
      if (read->bytes != 0 && buffer.size() == 0) buffer = AlignedBuffer(max_bytes);
      const std::span<std::byte> bytes = buffer.span().first(read->bytes);
      const Result<void> status = read->bytes == 0 ? Result<void>() : read_padded(file, read->offset, bytes);
      while (turn != my_turn) turn_changed.wait();
      if (!group.should_stop()) {
        outcome = consume(*read, status, bytes);
        if (!outcome.ok()) group.stop();
      }
      ++turn;
      turn_changed.restart_all();
    }
  };
  for (unsigned i = 0; i < depth; ++i) group.start(worker, "table reader");
  group.wait_all();
  return outcome;
}

}  // namespace coimg::qcow2
