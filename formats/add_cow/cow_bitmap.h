// CowBitmap: which clusters are in the image file. A cache of blocks of the bitmap, in bounded memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "block/node.h"
#include "block/util/offsets.h"
#include "block/util/result.h"
#include "coroutine/annotations.h"
#include "coroutine/co_mutex.h"
#include "coroutine/co_queue.h"
#include "coroutine/co_rwlock.h"

namespace coimg::add_cow {

/// How many of the `most` bits (> 0) from `first` on are like the first one. Bit 0 is the lowest of byte 0.
uint64_t count_equal_bits(std::span<const std::byte> bytes, uint64_t first, uint64_t most);
bool test_bit(std::span<const std::byte> bytes, uint64_t bit);
void set_bits(std::span<std::byte> bytes, uint64_t first, uint64_t count);
void clear_bits(std::span<std::byte> bytes, uint64_t first, uint64_t count);
/// How many of the first `bits` are set.
uint64_t count_set_bits(std::span<const std::byte> bytes, uint64_t bits);

/// How much of the bitmap is held in memory.
struct BitmapMemory {
  size_t block_bytes = 64 * 1024;  ///< power of two, at least 512: what is read at once
  size_t blocks = 32;              ///< at least 2

  /// For a limit that the user gives.
  static BitmapMemory of(uint64_t bytes);
};

/// The bits of the clusters, on disk at the end of the add-cow file.
///
/// A bit is set in memory, and reaches the file no earlier than what it stands for is durable in the image file: bits
/// leave by store() only, which takes a copy of them, flushes the image file, and then writes the copy. A bit set while
/// that flush runs is not in the copy and waits for the next round.
///
/// Locks: `lock_` for the blocks and their bits, held while memory is looked at or changed and never across I/O;
/// `store_lock_` before it.
class CowBitmap {
 public:
  /// The bitmap is at `start` of `file`, for `clusters` clusters. `image`: the file that has their data.
  CowBitmap(BlockNode& file, BlockNode& image, HostOffset start, uint64_t clusters, const BitmapMemory& memory);
  ~CowBitmap();

  [[nodiscard]] uint64_t clusters() const { return clusters_; }
  /// Says how many clusters there are; bits behind them are the caller's matter.
  void set_clusters(uint64_t clusters) { clusters_ = clusters; }

  struct Run {
    bool set = false;
    uint64_t clusters = 0;
  };
  /// The clusters from `first` on, at most `most`, that are alike: perhaps not all of them. `first` is one of the disk,
  /// `most` is > 0.
  Result<Run> find_run(GuestCluster first, uint64_t most) coroutine_fn CO_EXCLUDES(lock_);

  /// How many clusters have their bit set.
  Result<uint64_t> count_set() coroutine_fn CO_EXCLUDES(lock_);

  /// Sets bits, to be stored later. What they stand for has been written to the image file. Errors: those of reading;
  /// some bits may be set then.
  Result<void> set(GuestCluster first, uint64_t count) coroutine_fn CO_EXCLUDES(lock_);

  /// Clears the bits from `first` on, up to `end_byte` of the bitmap, in memory and in the file, where those that share
  /// a page with others arrive by the next store(). Not beside requests that set bits. Does not flush.
  Result<void> clear_from(GuestCluster first, uint64_t end_byte) coroutine_fn CO_EXCLUDES(lock_);

  /// Something is set that is not in the file yet.
  [[nodiscard]] bool dirty() const { return dirty_ || storing_; }

  /// Flushes the image file, then writes the bits that were set when this began. Does not flush the add-cow file.
  /// Errors: those of the flush, no bit has been written; those of writing. What is not written stays to be stored.
  Result<void> store() coroutine_fn CO_EXCLUDES(lock_);

 private:
  struct Block;
  struct Piece;

  template <typename Visit>
  Result<void> visit_for_reading(uint64_t index, const Visit& visit) coroutine_fn CO_EXCLUDES(lock_);
  template <typename Visit>
  Result<void> visit_for_writing(uint64_t index, const Visit& visit) coroutine_fn CO_EXCLUDES(lock_);
  /// The bits from `position` on, at most `most`, that are clear because the file has a hole there; perhaps none.
  Result<uint64_t> find_hole(uint64_t position, uint64_t most) coroutine_fn CO_EXCLUDES(lock_);
  Result<void> load(uint64_t index) coroutine_fn CO_EXCLUDES(lock_);
  Result<void> make_room() coroutine_fn CO_EXCLUDES(lock_);
  bool drop_oldest_locked() CO_REQUIRES(lock_);
  void mark_dirty(Block& block, uint64_t first_bit, uint64_t count);
  std::vector<Piece> take_dirty() coroutine_fn CO_EXCLUDES(lock_);
  void finish(std::span<const Piece> pieces, bool written) coroutine_fn CO_EXCLUDES(lock_);
  [[nodiscard]] uint64_t bits_per_block() const { return uint64_t{memory_.block_bytes} * 8; }

  BlockNode& file_;
  BlockNode& image_;
  const HostOffset start_;
  const BitmapMemory memory_;
  const size_t page_bytes_;
  uint64_t clusters_;

  CoMutex store_lock_;  ///< one store() at a time
  CoRwlock lock_;
  std::map<uint64_t, std::unique_ptr<Block>> blocks_ CO_GUARDED_BY(lock_);
  std::set<uint64_t> loading_;  ///< indexes of blocks that somebody is reading
  CoQueue loaded_;
  uint64_t clearings_ = 0;  ///< counts clear_from(), after which what was read before is out of date
  uint64_t last_use_ = 0;
  bool dirty_ = false;    ///< some block has dirty pages
  bool storing_ = false;  ///< a copy of some is on its way
};

}  // namespace coimg::add_cow
