// WriteLog: what was written to a file, and what a power cut would have left of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace coimg {

/// The kinds of I/O, as bits for masks.
enum FaultOp : unsigned {
  kOpRead = 1,
  kOpWrite = 2,
  kOpZeroes = 4,
  kOpDiscard = 8,
  kOpFlush = 16,
  kOpTruncate = 32,
  kOpChanges = kOpWrite | kOpZeroes | kOpDiscard | kOpTruncate,
  kOpAll = 63,
};

/// One I/O that succeeded, of those that change the file, and flushes.
struct LoggedIo {
  FaultOp op;
  uint64_t time;        ///< counts up over the I/Os of all files
  uint64_t offset = 0;  ///< truncate: the new length
  uint64_t bytes = 0;
  std::vector<std::byte> data = {};  ///< of a write
};

/// A file's content at the beginning, and all changes since, in the order in which they took effect.
class WriteLog {
 public:
  explicit WriteLog(std::vector<std::byte> initial) : initial_(std::move(initial)) {}

  void add(LoggedIo io) { entries_.push_back(std::move(io)); }
  /// A flush covers what was complete when it began, so it goes behind the first `complete` entries.
  void add_flush(size_t complete, uint64_t time);

  [[nodiscard]] const std::vector<LoggedIo>& entries() const { return entries_; }
  /// How many entries are not later than `time`.
  [[nodiscard]] size_t entries_until(uint64_t time) const;
  /// Of the first `count` entries, how many a flush has made durable.
  [[nodiscard]] size_t durable_until(size_t count) const;

  /// Whether an unflushed entry's change of its nth sector (of 512 bytes, counted within the entry) reached the disk.
  using Survives = std::function<bool(size_t entry, uint64_t nth_sector)>;
  /// The file after a power loss behind the first `count` entries.
  [[nodiscard]] std::vector<std::byte> bytes_after_crash(size_t count, const Survives& survives) const;

 private:
  std::vector<std::byte> initial_;
  std::vector<LoggedIo> entries_;
};

/// One way in which the power may go.
struct PowerLoss {
  size_t count = 0;  ///< entries that had been issued
  WriteLog::Survives survives;
  std::string what;  ///< for messages
};

/// Ways in which the power may go behind `count` entries, at most `most`, at least one; all of them when there are few:
/// every subset of the unflushed entries up to a bound, each of them torn, and random choices of single sectors. Among
/// what does not fit into `most`, and for the random ones, `seed` chooses.
std::vector<PowerLoss> power_losses(const WriteLog& log, size_t count, size_t most, uint64_t seed);

}  // namespace coimg
