// Blocks are read whole and written by pages: a page is small enough to arrive as a whole, and a torn one would only
// miss some of its new bits, which is as if their clusters had not been written.
//
// Format: add-cow, sections "The bitmap", "Crash consistency".
#include "formats/add_cow/cow_bitmap.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <utility>

#include "block/util/math.h"
#include "block/util/scope.h"

namespace coimg::add_cow {

namespace {

constexpr size_t kMaxPageBytes = 4096;
/// A lookup ends after so many blocks: its caller comes back for the rest.
constexpr unsigned kMaxBlocksPerLookup = 16;

/// The byte at `index` and up to seven more, zeros behind the end.
uint64_t word_at(std::span<const std::byte> bytes, size_t index) {
  uint64_t word = 0;
  std::memcpy(&word, bytes.data() + index, std::min(sizeof word, bytes.size() - index));
  return std::endian::native == std::endian::little ? word : __builtin_bswap64(word);
}

/// Calls `change(byte, mask)` for each byte with bits in the range.
template <typename Change>
void change_bits(std::span<std::byte> bytes, uint64_t first, uint64_t count, const Change& change) {
  for (uint64_t bit = first; bit < first + count;) {
    const uint64_t in_byte = bit % 8;
    const uint64_t step = std::min(8 - in_byte, first + count - bit);
    change(bytes[bit / 8], static_cast<std::byte>(((1U << step) - 1) << in_byte));
    bit += step;
  }
}

}  // namespace

uint64_t count_equal_bits(std::span<const std::byte> bytes, uint64_t first, uint64_t most) {
  assert(most > 0 && first + most <= bytes.size() * 8);
  const bool value = test_bit(bytes, first);
  uint64_t count = 0;
  while (count < most) {
    const uint64_t bit = first + count;
    const uint64_t word = word_at(bytes, bit / 8) >> (bit % 8);
    const uint64_t usable = 64 - bit % 8;
    const auto run = static_cast<uint64_t>(value ? std::countr_one(word) : std::countr_zero(word));
    count += std::min(run, usable);
    if (run < usable) break;
  }
  return std::min(count, most);
}

bool test_bit(std::span<const std::byte> bytes, uint64_t bit) {
  return (bytes[bit / 8] & static_cast<std::byte>(1U << (bit % 8))) != std::byte{0};
}

void set_bits(std::span<std::byte> bytes, uint64_t first, uint64_t count) {
  change_bits(bytes, first, count, [](std::byte& byte, std::byte mask) { byte |= mask; });
}

void clear_bits(std::span<std::byte> bytes, uint64_t first, uint64_t count) {
  change_bits(bytes, first, count, [](std::byte& byte, std::byte mask) { byte &= ~mask; });
}

uint64_t count_set_bits(std::span<const std::byte> bytes, uint64_t bits) {
  assert(bits <= bytes.size() * 8);
  uint64_t count = 0;
  for (uint64_t bit = 0; bit < bits; bit += 64) {
    const uint64_t word = word_at(bytes, bit / 8);
    const uint64_t left = bits - bit;
    count += static_cast<uint64_t>(std::popcount(left < 64 ? word & ((uint64_t{1} << left) - 1) : word));
  }
  return count;
}

BitmapMemory BitmapMemory::of(uint64_t bytes) {
  constexpr size_t kMinBlockBytes = 512, kMinBlocks = 2, kWantedBlocks = 8;
  constexpr uint64_t kMaxBytes = kGiB;
  BitmapMemory memory;
  bytes = std::min(bytes, kMaxBytes);
  while (memory.block_bytes > kMinBlockBytes && memory.block_bytes * kWantedBlocks > bytes) memory.block_bytes /= 2;
  memory.blocks = std::max<size_t>(bytes / memory.block_bytes, kMinBlocks);
  return memory;
}

/// A part of the bitmap in memory. Pages are told apart by one bit each.
struct CowBitmap::Block {
  explicit Block(size_t bytes) : memory(bytes) {}

  std::vector<std::byte> memory;
  uint64_t last_use = 0;
  uint64_t dirty_pages = 0;
  unsigned stores = 0;  ///< a copy is on its way: must stay in memory, as the file may still have the old bits

  [[nodiscard]] bool evictable() const { return dirty_pages == 0 && stores == 0; }
};

/// A copy of pages of one block in a row.
struct CowBitmap::Piece {
  uint64_t block, first_page;
  std::vector<std::byte> bytes;
};

CowBitmap::CowBitmap(BlockNode& file, BlockNode& image, HostOffset start, uint64_t clusters, const BitmapMemory& memory)
    : file_(file),
      image_(image),
      start_(start),
      memory_(memory),
      page_bytes_(std::min(memory.block_bytes, kMaxPageBytes)),
      clusters_(clusters) {
  assert(std::has_single_bit(memory.block_bytes) && memory.block_bytes >= kSectorSize && memory.blocks >= 2);
  assert(memory.block_bytes / page_bytes_ <= 64);
}

CowBitmap::~CowBitmap() { assert(loading_.empty()); }

// --- blocks --------------------------------------------------------------------------------------------------------

template <typename Visit>
Result<void> CowBitmap::visit_for_reading(uint64_t index, const Visit& visit) {
  for (;;) {
    {
      const CoReadGuard guard(lock_);
      if (const auto found = blocks_.find(index); found != blocks_.end()) {
        found->second->last_use = ++last_use_;
        visit(std::as_const(*found->second));
        return {};
      }
    }
    COIMG_TRY(load(index));
  }
}

template <typename Visit>
Result<void> CowBitmap::visit_for_writing(uint64_t index, const Visit& visit) {
  for (;;) {
    {
      const CoWriteGuard guard(lock_);
      if (const auto found = blocks_.find(index); found != blocks_.end()) {
        found->second->last_use = ++last_use_;
        visit(*found->second);
        return {};
      }
    }
    COIMG_TRY(load(index));
  }
}

/// Reads a block, or waits until somebody else has. It may be gone again when this returns.
Result<void> CowBitmap::load(uint64_t index) {
  if (loading_.contains(index)) {
    loaded_.wait();
    return {};
  }
  loading_.insert(index);
  const auto done = on_scope_exit([&] {
    loading_.erase(index);
    loaded_.restart_all();
  });

  const uint64_t clearings = clearings_;
  const uint64_t offset = start_.v + index * memory_.block_bytes;
  auto block = std::make_unique<Block>(memory_.block_bytes);
  const uint64_t file_bytes = file_.exact_length();
  const uint64_t stored = offset < file_bytes ? std::min<uint64_t>(memory_.block_bytes, file_bytes - offset) : 0;
  if (stored != 0) {
    COIMG_TRY(file_.co_pread(offset, std::span(block->memory).first(stored))
                  .with_context(fmt::format("reading the COW bitmap at {:#x}", offset)));
  }
  COIMG_TRY(make_room());
  const CoWriteGuard guard(lock_);
  if (clearings != clearings_) return {};
  block->last_use = ++last_use_;
  blocks_.emplace(index, std::move(block));
  return {};
}

Result<void> CowBitmap::make_room() {
  for (;;) {
    {
      const CoWriteGuard guard(lock_);
      if (blocks_.size() < memory_.blocks || drop_oldest_locked()) return {};
    }
    COIMG_TRY(store());  // all of them, so that one flush serves many
  }
}

bool CowBitmap::drop_oldest_locked() {
  auto oldest = blocks_.end();
  for (auto each = blocks_.begin(); each != blocks_.end(); ++each) {
    if (!each->second->evictable()) continue;
    if (oldest == blocks_.end() || each->second->last_use < oldest->second->last_use) oldest = each;
  }
  if (oldest == blocks_.end()) return false;
  blocks_.erase(oldest);
  return true;
}

// --- bits ----------------------------------------------------------------------------------------------------------

Result<CowBitmap::Run> CowBitmap::find_run(GuestCluster first, uint64_t most) {
  assert(first.v < clusters_ && most > 0);
  most = std::min(most, clusters_ - first.v);
  Run run;
  for (unsigned blocks = 0; blocks < kMaxBlocksPerLookup && run.clusters < most; ++blocks) {
    const uint64_t position = first.v + run.clusters;
    if (!run.set) {
      const uint64_t hole = COIMG_TRY(find_hole(position, most - run.clusters));
      run.clusters += hole;
      if (hole != 0) continue;
    }
    const uint64_t in_block = position % bits_per_block();
    const uint64_t wanted = std::min(bits_per_block() - in_block, most - run.clusters);
    uint64_t found = 0;
    COIMG_TRY(visit_for_reading(position / bits_per_block(), [&](const Block& block) {
      const bool set = test_bit(block.memory, in_block);
      if (run.clusters == 0) run.set = set;
      if (set == run.set) found = count_equal_bits(block.memory, in_block, wanted);
    }));
    run.clusters += found;
    if (found < wanted) break;
  }
  return run;
}

/// The bitmap of a large disk is mostly a hole, of which no block need be read. What is in memory goes before the file.
Result<uint64_t> CowBitmap::find_hole(uint64_t position, uint64_t most) {
  const uint64_t index = position / bits_per_block();
  {
    const CoReadGuard guard(lock_);
    if (blocks_.contains(index)) return 0;
  }
  const uint64_t offset = start_.v + position / 8;
  const uint64_t file_bytes = file_.exact_length();
  uint64_t hole_bytes = div_ceil(most, 8) + 1;
  if (offset < file_bytes) {
    const auto status = COIMG_TRY(file_.co_block_status(offset, std::min(hole_bytes, file_bytes - offset))
                                      .with_context(fmt::format("reading the COW bitmap at {:#x}", offset)));
    if (!status.zero) return 0;
    hole_bytes = status.bytes;
  }
  const CoReadGuard guard(lock_);
  const auto next = blocks_.lower_bound(index);
  uint64_t end = (position / 8 + hole_bytes) * 8;
  if (next != blocks_.end()) end = std::min(end, next->first * bits_per_block());
  return end > position ? std::min(most, end - position) : 0;
}

Result<uint64_t> CowBitmap::count_set() {
  uint64_t count = 0;
  for (uint64_t position = 0; position < clusters_;) {
    uint64_t step = COIMG_TRY(find_hole(position, clusters_ - position));
    if (step == 0) {
      const uint64_t in_block = position % bits_per_block();
      step = std::min(bits_per_block() - in_block, clusters_ - position);
      COIMG_TRY(visit_for_reading(position / bits_per_block(), [&](const Block& block) {
        count += count_set_bits(block.memory, in_block + step) - count_set_bits(block.memory, in_block);
      }));
    }
    position += step;
  }
  return count;
}

Result<void> CowBitmap::set(GuestCluster first, uint64_t count) {
  while (count > 0) {
    const uint64_t in_block = first.v % bits_per_block();
    const uint64_t step = std::min(bits_per_block() - in_block, count);
    COIMG_TRY(visit_for_writing(first.v / bits_per_block(), [&](Block& block) {
      set_bits(block.memory, in_block, step);
      mark_dirty(block, in_block, step);
    }));
    first += step;
    count -= step;
  }
  return {};
}

Result<void> CowBitmap::clear_from(GuestCluster first, uint64_t end_byte) {
  // The page that bits to be kept share with others goes by the way of all bits, the rest is zeroed in place.
  const uint64_t first_whole = align_up(first.v, uint64_t{page_bytes_} * 8);
  if (first.v != first_whole) {
    COIMG_TRY(visit_for_writing(first.v / bits_per_block(), [&](Block& block) {
      const uint64_t in_block = first.v % bits_per_block();
      const uint64_t bits = first_whole - first.v;
      if (count_equal_bits(block.memory, in_block, bits) == bits && !test_bit(block.memory, in_block)) return;
      clear_bits(block.memory, in_block, bits);
      mark_dirty(block, in_block, bits);
    }));
  }
  const CoMutexGuard storing(store_lock_);
  const uint64_t first_byte = first_whole / 8;
  const uint64_t begin = start_.v + first_byte;
  const uint64_t end = std::min(start_.v + end_byte, file_.exact_length());
  if (begin < end) {
    COIMG_TRY(file_.co_pwrite_zeroes(begin, end - begin, {.may_unmap = true})
                  .with_context(fmt::format("clearing the COW bitmap at {:#x}", begin)));
  }
  const CoWriteGuard guard(lock_);
  ++clearings_;  // what is being read may be of before
  for (auto next = blocks_.lower_bound(first_byte / memory_.block_bytes); next != blocks_.end(); ++next) {
    const uint64_t block_start = next->first * memory_.block_bytes;
    const uint64_t from = first_byte > block_start ? first_byte - block_start : 0;
    const uint64_t pages = from / page_bytes_;
    std::ranges::fill(std::span(next->second->memory).subspan(from), std::byte{0});
    next->second->dirty_pages &= pages == 0 ? 0 : ~uint64_t{0} >> (64 - pages);
  }
  return {};
}

void CowBitmap::mark_dirty(Block& block, uint64_t first_bit, uint64_t count) {
  const uint64_t page_bits = uint64_t{page_bytes_} * 8;
  for (uint64_t page = first_bit / page_bits; page <= (first_bit + count - 1) / page_bits; ++page) {
    block.dirty_pages |= uint64_t{1} << page;
  }
  dirty_ = true;
}

// --- storing -------------------------------------------------------------------------------------------------------

Result<void> CowBitmap::store() {
  const CoMutexGuard guard(store_lock_);
  storing_ = true;
  const std::vector<Piece> pieces = take_dirty();
  std::span<const Piece> left = pieces;
  Result<void> outcome = image_.co_flush().with_context("flushing the image file");
  while (outcome.ok() && !left.empty()) {
    const Piece& piece = left.front();
    const uint64_t offset = start_.v + piece.block * memory_.block_bytes + piece.first_page * page_bytes_;
    outcome = file_.co_pwrite(offset, piece.bytes).with_context(fmt::format("writing the COW bitmap at {:#x}", offset));
    if (outcome.ok()) left = left.subspan(1);
  }
  finish(std::span(pieces).first(pieces.size() - left.size()), true);
  finish(left, false);
  storing_ = false;
  return outcome;
}

/// Copies the dirty pages; the copies are as old as the flush that follows needs them to be.
std::vector<CowBitmap::Piece> CowBitmap::take_dirty() {
  const CoWriteGuard guard(lock_);
  dirty_ = false;
  std::vector<Piece> pieces;
  for (const auto& [index, block] : blocks_) {
    for (uint64_t pages = std::exchange(block->dirty_pages, 0); pages != 0;) {
      const auto first = static_cast<unsigned>(std::countr_zero(pages));
      const auto count = static_cast<unsigned>(std::countr_one(pages >> first));
      const auto bytes = std::span(block->memory).subspan(first * page_bytes_, count * page_bytes_);
      pieces.push_back({index, first, {bytes.begin(), bytes.end()}});
      ++block->stores;
      pages &= count + first == 64 ? 0 : ~uint64_t{0} << (count + first);
    }
  }
  return pieces;
}

void CowBitmap::finish(std::span<const Piece> pieces, bool written) {
  const CoWriteGuard guard(lock_);
  for (const Piece& piece : pieces) {
    Block& block = *blocks_.at(piece.block);
    --block.stores;
    if (!written) mark_dirty(block, piece.first_page * page_bytes_ * 8, piece.bytes.size() * 8);
  }
}

}  // namespace coimg::add_cow
