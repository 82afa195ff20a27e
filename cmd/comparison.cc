#include "cmd/comparison.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "block/io_vector.h"
#include "block/util/math.h"
#include "coroutine/co_group.h"
#include "coroutine/worker_pool.h"

namespace coimg {

namespace {

constexpr unsigned kMostWorkers = 8;

using Kind = ComparisonFinding::Kind;

/// The start of the first sector that differs; `bytes` when none does.
uint64_t find_difference(const std::byte* a, const std::byte* b, uint64_t bytes) {
  if (std::memcmp(a, b, bytes) == 0) return bytes;
  uint64_t offset = 0;  // bounded by itself: a file that is mapped may have changed since
  while (offset < bytes && std::memcmp(a + offset, b + offset, std::min(kSectorSize, bytes - offset)) == 0) {
    offset += kSectorSize;
  }
  return std::min(offset, bytes);
}

/// The start of the first sector that is not all zeros; the size when there is none.
uint64_t find_nonzero(std::span<const std::byte> memory) {
  if (is_zero(memory)) return memory.size();
  uint64_t offset = 0;
  while (offset < memory.size() &&
         is_zero(memory.subspan(offset, std::min<uint64_t>(kSectorSize, memory.size() - offset)))) {
    offset += kSectorSize;
  }
  return std::min<uint64_t>(offset, memory.size());
}

bool reads_as_zeros(const BlockStatus& status) { return status.zero || !status.allocated; }

bool same_allocation(const BlockStatus& a, const BlockStatus& b) {
  return a.allocated == b.allocated && a.data == b.data && a.zero == b.zero &&
         a.host_offset.has_value() == b.host_offset.has_value();
}

}  // namespace

Comparison::Comparison(BlockNode& first, BlockNode* second, Options options)
    : options_(std::move(options)),
      size_(transfer_size({.decode_unit = std::max(first.chain_compression_unit(),
                                                   second != nullptr ? second->chain_compression_unit() : 0),
                           .buffers = 2,
                           .most_workers = kMostWorkers})),
      cursors_{{.node = &first}, {.node = second}} {}

ComparisonFinding Comparison::run(uint64_t offset, uint64_t end) {
  {
    const CoMutexGuard guard(plan_lock_);
    position_ = offset;
    end_ = end;
  }
  CoGroup workers;
  const uint64_t chunks = div_ceil(end - offset, size_.chunk_bytes);
  for (unsigned i = 0; i < std::min<uint64_t>(size_.workers, chunks); ++i) {
    workers.start([this]() coroutine_fn { compare_chunks(); }, "compare");
  }
  workers.wait_all();
  return first_finding_;
}

void Comparison::compare_chunks() {
  PageBuffer buffers[2] = {PageBuffer(size_.chunk_bytes), PageBuffer(size_.chunk_bytes)};
  while (const std::optional<Chunk> chunk = next_chunk()) compare_chunk(*chunk, buffers);
}

std::optional<Comparison::Chunk> Comparison::next_chunk() {
  const CoMutexGuard guard(plan_lock_);
  return plan_chunk_locked();
}

/// The next range with something to read. Nothing when all is planned, or all that lies before a finding.
std::optional<Comparison::Chunk> Comparison::plan_chunk_locked() {
  while (position_ < end_ && position_ < first_finding_.offset) {
    if (options_.on_progress) options_.on_progress(position_);
    if (options_.should_stop && options_.should_stop()) return std::nullopt;
    if (!look_up_locked(0) || !look_up_locked(1)) return std::nullopt;
    if (options_.strict && !same_allocation(cursors_[0].status, cursors_[1].status)) {
      note({.kind = Kind::kStatus, .offset = position_});
      return std::nullopt;
    }
    Chunk chunk{.offset = position_,
                .bytes = std::min(cursors_[0].end, cursors_[1].end) - position_,
                .zero = {reads_as_zeros(cursors_[0].status), reads_as_zeros(cursors_[1].status)}};
    if (chunk.zero[0] && chunk.zero[1]) {
      position_ += chunk.bytes;
      continue;
    }
    // Ends where compressed clusters do: none is decoded twice.
    chunk.bytes = std::min(chunk.bytes, size_.chunk_bytes - position_ % size_.chunk_bytes);
    position_ += chunk.bytes;
    return chunk;
  }
  return std::nullopt;
}

/// Makes an image's cursor cover the position. False when the image fails to answer, which is noted.
bool Comparison::look_up_locked(unsigned image) {
  StatusCursor& cursor = cursors_[image];
  if (position_ < cursor.end) return true;
  if (cursor.node == nullptr) {
    cursor.status = BlockStatus{};
    cursor.status.zero = true;
    cursor.end = end_;
    return true;
  }
  Result<ChainStatus> found = cursor.node->co_chain_status(position_, end_ - position_);
  if (!found.ok()) {
    note({.kind = Kind::kStatusFailed, .offset = position_, .image = image, .error = std::move(found).error()});
    return false;
  }
  cursor.status = found->status;
  cursor.end = position_ + cursor.status.bytes;
  return true;
}

void Comparison::compare_chunk(const Chunk& chunk, std::span<PageBuffer, 2> buffers) {
  const std::span<std::byte> contents[2] = {buffers[0].span().first(chunk.bytes), buffers[1].span().first(chunk.bytes)};
  for (const unsigned image : {0U, 1U}) {
    if (!chunk.zero[image] && !read(image, chunk, IoVector(buffers[image], contents[image]))) return;
  }
  const uint64_t difference = co_run_on_worker([&] {
    if (chunk.zero[0] || chunk.zero[1]) return find_nonzero(contents[chunk.zero[0] ? 1 : 0]);
    return find_difference(contents[0].data(), contents[1].data(), chunk.bytes);
  });
  for (const unsigned image : {0U, 1U}) {
    if (buffers[image].take_lost()) return note_failed_read(image, chunk, lost_pages());
  }
  if (difference < chunk.bytes) note({.kind = Kind::kContent, .offset = chunk.offset + difference});
}

bool Comparison::read(unsigned image, const Chunk& chunk, const IoVector& memory) {
  Result<void> result = cursors_[image].node->co_preadv(chunk.offset, memory);
  if (result.ok()) return true;
  note_failed_read(image, chunk, std::move(result).error());
  return false;
}

void Comparison::note_failed_read(unsigned image, const Chunk& chunk, Error error) {
  note({.kind = Kind::kReadFailed, .offset = chunk.offset, .image = image, .error = std::move(error)});
}

void Comparison::note(ComparisonFinding finding) {
  if (finding.offset < first_finding_.offset) first_finding_ = std::move(finding);
}

}  // namespace coimg
