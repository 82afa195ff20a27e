#include "tests/support/fault_driver.h"

#include <algorithm>
#include <random>

#include "block/util/math.h"
#include "coroutine/co_sleep.h"

namespace coimg {

namespace {

uint64_t last_tick = 0;
uint64_t tick() { return ++last_tick; }

}  // namespace

FaultDriver::FaultDriver(std::shared_ptr<MemDisk> disk, MemOptions options)
    : MemDriver(std::move(disk), options), log_(bytes()) {}

void FaultDriver::fail_nth_io(uint64_t nth, int errnum, unsigned ops) {
  fired_ = false;
  faults_.push_back({.ops = ops, .errnum = errnum, .countdown = nth});
}

void FaultDriver::fail_from_nth_io(uint64_t nth, int errnum, unsigned ops) {
  fired_ = false;
  faults_.push_back({.ops = ops, .errnum = errnum, .countdown = nth, .lasting = true});
}

void FaultDriver::fail_range(uint64_t offset, uint64_t bytes, int errnum, unsigned ops) {
  fired_ = false;
  faults_.push_back({.ops = ops, .errnum = errnum, .offset = offset, .end = offset + bytes});
}

void FaultDriver::heal() { faults_.clear(); }

Result<void> FaultDriver::before(FaultOp op, uint64_t offset, uint64_t bytes) {
  // Counted before the delay: the order of issue decides which one is the nth.
  int errnum = 0;
  for (Fault& fault : faults_) {
    if (!(fault.ops & op)) continue;
    if (offset >= fault.end || offset + bytes < fault.offset || (bytes && offset + bytes == fault.offset)) continue;
    const bool by_count = fault.countdown > 0 && --fault.countdown == 0;
    const bool by_range = fault.end != UINT64_MAX;
    if (by_count && fault.lasting) fault.triggered = true;
    if (by_count || by_range || fault.triggered) errnum = fault.errnum;
  }
  if (errnum) fired_ = true;
  if (delay_ns_) co_sleep_ns(ClockType::kMonotonic, delay_ns_);
  if (errnum) return Error::from_errno(errnum);
  return {};
}

Result<void> FaultDriver::preadv(uint64_t offset, const IoVector& iov) {
  COIMG_TRY(before(kOpRead, offset, iov.size()));
  return MemDriver::preadv(offset, iov);
}

Result<void> FaultDriver::pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options) {
  auto allowed = before(kOpWrite, offset, iov.size());
  if (!allowed.ok() && failed_writes_begin_) COIMG_TRY(write(offset, iov.slice(0, iov.size() / 2), options));
  COIMG_TRY(std::move(allowed));
  return write(offset, iov, options);
}

Result<void> FaultDriver::write(uint64_t offset, const IoVector& iov, const WriteOptions& options) {
  COIMG_TRY(MemDriver::pwritev(offset, iov, options));
  std::vector<std::byte> data(iov.size());
  iov.copy_to(0, data);
  log_.add({.op = kOpWrite, .time = tick(), .offset = offset, .bytes = iov.size(), .data = std::move(data)});
  return {};
}

Result<void> FaultDriver::pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions& options) {
  COIMG_TRY(before(kOpZeroes, offset, bytes));
  COIMG_TRY(MemDriver::pwrite_zeroes(offset, bytes, options));
  log_.add({.op = kOpZeroes, .time = tick(), .offset = offset, .bytes = bytes});
  return {};
}

Result<void> FaultDriver::pdiscard(uint64_t offset, uint64_t bytes) {
  COIMG_TRY(before(kOpDiscard, offset, bytes));
  COIMG_TRY(MemDriver::pdiscard(offset, bytes));
  log_.add({.op = kOpDiscard, .time = tick(), .offset = offset, .bytes = bytes});
  return {};
}

Result<void> FaultDriver::flush() {
  // Only what was complete when the flush began is durable when it ends.
  const size_t complete = log_.entries().size();
  const uint64_t begin = tick();
  COIMG_TRY(before(kOpFlush, 0, 0));
  COIMG_TRY(MemDriver::flush());
  log_.add_flush(complete, begin);
  return {};
}

Result<void> FaultDriver::truncate(uint64_t new_length, Preallocation preallocation) {
  COIMG_TRY(before(kOpTruncate, new_length, 0));
  COIMG_TRY(MemDriver::truncate(new_length, preallocation));
  log_.add({.op = kOpTruncate, .time = tick(), .offset = new_length});
  return {};
}

uint64_t FaultDriver::now() { return last_tick; }

std::vector<std::byte> FaultDriver::bytes_after_crash(size_t entries, uint64_t seed) const {
  std::mt19937_64 random(seed);
  return log_.bytes_after_crash(entries, [&](size_t, uint64_t) { return seed != 0 && (random() & 1) != 0; });
}

std::unique_ptr<BlockNode> make_fault_node(std::shared_ptr<MemDisk> disk, MemOptions options, OpenFlags flags) {
  auto node = std::make_unique<BlockNode>("fault", flags);
  node->set_driver(std::make_unique<FaultDriver>(std::move(disk), options));
  return node;
}

std::unique_ptr<BlockNode> make_fault_node(std::vector<std::byte> content) {
  return make_fault_node(std::make_shared<MemDisk>(std::move(content)));
}

FaultDriver& fault_driver(const BlockNode& node) { return dynamic_cast<FaultDriver&>(node.driver()); }

}  // namespace coimg
