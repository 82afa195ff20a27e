// FaultDriver: a MemDriver whose I/O fails, takes time, or is lost when the power goes.
//
// I/Os are reads, writes, zeroes, discards, flushes and truncates; they are counted from one. A test that has to hold
// for every failure loops over `nth` until fired() stays false:
//
//     for (uint64_t nth = 1;; ++nth) {
//       auto file = make_fault_node(disk);
//       fault_driver(*file).fail_nth_io(nth, EIO);
//       ... the operation ...
//       if (!fault_driver(*file).fired()) break;   // nth is past the last I/O: that was the clean run
//       ... what must hold after the failure ...
//     }
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "block/node.h"
#include "tests/support/mem_driver.h"
#include "tests/support/write_log.h"

namespace coimg {

class FaultDriver final : public MemDriver {
 public:
  explicit FaultDriver(std::shared_ptr<MemDisk> disk, MemOptions options = {});

  /// Lets the nth I/O from now on (of the kinds in `ops`) fail with `errnum`, once. Nothing of it takes place, unless
  /// let_failed_writes_begin().
  void fail_nth_io(uint64_t nth, int errnum, unsigned ops = kOpAll);
  /// Lets all I/Os from the nth from now on fail: the disk is gone.
  void fail_from_nth_io(uint64_t nth, int errnum, unsigned ops = kOpAll);
  /// Lets all I/Os of the kinds that touch [offset, offset + bytes) fail.
  void fail_range(uint64_t offset, uint64_t bytes, int errnum, unsigned ops = kOpAll);
  /// From now on the first half of a write that fails takes place, as when the disk becomes full meanwhile.
  void let_failed_writes_begin() { failed_writes_begin_ = true; }
  /// Ends all failing.
  void heal();
  /// Whether an I/O has failed since the last fail_*().
  [[nodiscard]] bool fired() const { return fired_; }

  /// Lets each I/O take this long on the monotonic clock; others run meanwhile.
  void set_delay_ns(int64_t ns) { delay_ns_ = ns; }

  /// What has been written, in the order in which it took effect.
  [[nodiscard]] const std::vector<LoggedIo>& log() const { return log_.entries(); }
  [[nodiscard]] const WriteLog& write_log() const { return log_; }

  /// The file after a power loss behind the first `entries` entries of the log: what was flushed by then is there; each
  /// later change, down to single sectors of 512 bytes, is there or not as `seed` says. Seed 0: none of them is.
  [[nodiscard]] std::vector<std::byte> bytes_after_crash(size_t entries, uint64_t seed) const;
  /// The time of the latest I/O of any file.
  static uint64_t now();

  Result<void> preadv(uint64_t offset, const IoVector& iov) coroutine_fn override;
  Result<void> pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options) coroutine_fn override;
  Result<void> pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions& options) coroutine_fn override;
  Result<void> pdiscard(uint64_t offset, uint64_t bytes) coroutine_fn override;
  Result<void> flush() coroutine_fn override;
  Result<void> truncate(uint64_t new_length, Preallocation preallocation) coroutine_fn override;

 private:
  struct Fault {
    unsigned ops = 0;
    int errnum = 0;
    uint64_t countdown = 0;  ///< the one that brings it to 0 fails; 0: not by count
    bool lasting = false;    ///< goes on failing after that
    bool triggered = false;
    uint64_t offset = 0, end = UINT64_MAX;
  };
  Result<void> before(FaultOp op, uint64_t offset, uint64_t bytes) coroutine_fn;
  Result<void> write(uint64_t offset, const IoVector& iov, const WriteOptions& options) coroutine_fn;

  WriteLog log_;
  std::vector<Fault> faults_;
  bool fired_ = false;
  bool failed_writes_begin_ = false;
  int64_t delay_ns_ = 0;
};

/// A writable protocol node on a FaultDriver.
std::unique_ptr<BlockNode> make_fault_node(std::shared_ptr<MemDisk> disk, MemOptions options = {},
                                           OpenFlags flags = {.writable = true});
std::unique_ptr<BlockNode> make_fault_node(std::vector<std::byte> content);
FaultDriver& fault_driver(const BlockNode& node);

}  // namespace coimg
