// A coroutine for each request in flight: it takes the next request as soon as its last one has ended.
#include "cmd/bench_run.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "block/util/buffer.h"
#include "block/util/math.h"
#include "coroutine/co_group.h"

namespace coimg {

namespace {

class BenchRun {
 public:
  BenchRun(BlockNode& node, const BenchPlan& plan) : node_(node), plan_(plan), next_offset_(plan.offset) {}

  Result<void> run() coroutine_fn;

 private:
  using Group = CoTryGroup<Result<void>>;

  Result<void> allocate();
  Result<void> send_until(uint64_t end) coroutine_fn;
  Result<void> send_one_after_the_other(const Group& group, std::span<std::byte> memory, uint64_t end) coroutine_fn;
  Result<void> request(uint64_t offset, std::span<std::byte> memory) coroutine_fn;
  [[nodiscard]] uint64_t in_flight() const { return std::min(plan_.depth, plan_.count); }
  [[nodiscard]] std::span<std::byte> memory_of(uint64_t member);
  uint64_t take_offset();

  BlockNode& node_;
  const BenchPlan& plan_;
  AlignedBuffer buffer_;
  uint64_t sent_ = 0, done_ = 0;
  uint64_t next_offset_;
};

/// Requests that write can share what they write.
Result<void> BenchRun::allocate() {
  const auto bytes = checked_mul(plan_.write ? 1 : in_flight(), plan_.bytes);
  if (!bytes.has_value()) return Error::from_errno(ENOMEM);
  try {
    buffer_ = AlignedBuffer(*bytes);
  } catch (const std::bad_alloc&) {
    return Error::from_errno(ENOMEM);
  }
  if (plan_.write && *bytes > 0) std::memset(buffer_.data(), static_cast<int>(plan_.pattern), *bytes);
  return {};
}

std::span<std::byte> BenchRun::memory_of(uint64_t member) {
  return buffer_.span().subspan(plan_.write ? 0 : member * plan_.bytes, plan_.bytes);
}

Result<void> BenchRun::run() {
  COIMG_TRY(allocate());
  const bool drain = plan_.flush_interval != 0 && plan_.drain_for_flush;
  if (!drain) return send_until(plan_.count);
  while (sent_ < plan_.count) {
    const uint64_t left = plan_.count - sent_;
    const uint64_t until_flush = left % plan_.flush_interval;
    COIMG_TRY(send_until(sent_ + (until_flush != 0 ? until_flush : plan_.flush_interval)));
    COIMG_TRY(node_.co_flush());
  }
  return {};
}

/// Sends requests up to number `end`, and waits for them.
Result<void> BenchRun::send_until(uint64_t end) {
  Group group;
  const uint64_t members = std::min(in_flight(), end - sent_);
  for (uint64_t i = 0; i < members; ++i) {
    group.start([this, &group, memory = memory_of(i), end]()
                    coroutine_fn { return send_one_after_the_other(group, memory, end); },
                "bench request");
  }
  return group.wait_all();
}

Result<void> BenchRun::send_one_after_the_other(const Group& group, std::span<std::byte> memory, uint64_t end) {
  while (sent_ < end && !group.should_stop()) {
    ++sent_;
    COIMG_TRY(request(take_offset(), memory));
    ++done_;
    const bool flush_here = plan_.flush_interval != 0 && !plan_.drain_for_flush;
    if (flush_here && (plan_.count - done_) % plan_.flush_interval == 0) COIMG_TRY(node_.co_flush());
  }
  return {};
}

Result<void> BenchRun::request(uint64_t offset, std::span<std::byte> memory) {
  if (!range_within(offset, memory.size(), node_.length())) return Error::from_errno(EIO);
  return plan_.write ? node_.co_pwrite(offset, memory) : node_.co_pread(offset, memory);
}

uint64_t BenchRun::take_offset() {
  const uint64_t length = node_.length();
  const uint64_t offset = next_offset_;
  next_offset_ += plan_.step_bytes;  // neither passes INT64_MAX
  if (next_offset_ >= length && length != 0) next_offset_ %= length;
  return offset;
}

}  // namespace

Result<void> run_bench(BlockNode& node, const BenchPlan& plan) {
  BenchRun run(node, plan);
  const Result<void> result = run.run();
  if (result.ok()) return {};
  return Error::from_errno(result.error().errnum(), "Failed request").where(result.error());
}

}  // namespace coimg
