#include "formats/qcow2/bitmap_bits.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <utility>

namespace coimg::qcow2 {

namespace {

/// Bit n is bit n % 8 of byte n / 8.
uint64_t load_word(std::span<const std::byte> bits, uint64_t index) {
  uint64_t word;
  std::memcpy(&word, bits.data() + index * sizeof word, sizeof word);
  return std::endian::native == std::endian::big ? __builtin_bswap64(word) : word;
}

void add_bits(std::span<std::byte> target, std::span<const std::byte> added) {
  for (size_t i = 0; i < target.size(); ++i) target[i] |= added[i];
}

}  // namespace

void set_bits(std::span<std::byte> bits, uint64_t first, uint64_t count) {
  const uint64_t end = first + count;
  const uint64_t whole_begin = align_up(first, 8), whole_end = align_down(end, 8);
  if (whole_begin > whole_end) {  // inside one byte
    bits[first / 8] |= std::byte((0xff << first % 8) & (0xff >> (8 - end % 8)));
    return;
  }
  if (first < whole_begin) bits[first / 8] |= std::byte(0xff << first % 8 & 0xff);
  std::memset(bits.data() + whole_begin / 8, 0xff, (whole_end - whole_begin) / 8);
  if (whole_end < end) bits[whole_end / 8] |= std::byte(0xff >> (8 - end % 8));
}

void for_each_run(std::span<const std::byte> bits, const std::function<void(uint64_t first, uint64_t count)>& visit) {
  uint64_t run_first = 0, run_count = 0;
  const auto finish = [&] {
    if (run_count != 0) visit(run_first, run_count);
    run_count = 0;
  };
  for (uint64_t index = 0; index < bits.size() / 8; ++index) {
    uint64_t word = load_word(bits, index);
    uint64_t position = index * 64;
    for (uint64_t left = 64; left > 0;) {
      const auto zeros = std::min<uint64_t>(std::countr_zero(word), left);
      if (zeros != 0) {
        finish();
        position += zeros;
        left -= zeros;
        word = zeros < 64 ? word >> zeros : 0;
        continue;
      }
      const auto ones = std::min<uint64_t>(std::countr_one(word), left);
      if (run_count == 0) run_first = position;
      run_count += ones;
      position += ones;
      left -= ones;
      word = ones < 64 ? word >> ones : 0;
    }
  }
  finish();
}

BitmapBits::BitmapBits(uint64_t disk_bytes, uint8_t granularity_bits, uint64_t chunk_bytes)
    : granularity_bits_(granularity_bits), chunk_bytes_(chunk_bytes) {
  resize(disk_bytes);
}

void BitmapBits::set_stored(std::vector<BitmapTableEntry> table) {
  assert(table.size() == table_.size());
  table_ = std::move(table);
  table_changed_ = false;
  changed_.clear();
}

uint64_t BitmapBits::bits_in(uint64_t chunk) const {
  return std::min(bits_per_chunk(), bit_count_ - chunk * bits_per_chunk());
}

// --- changes ---------------------------------------------------------------------------------------------------------

BitmapBits::Chunk& BitmapBits::change(uint64_t chunk) {
  Chunk& changed = changed_[chunk];
  if (changed.bits.empty()) changed.bits.resize(chunk_bytes_);
  return changed;
}

void BitmapBits::set(uint64_t offset, uint64_t bytes) {
  if (bytes == 0 || offset >= disk_bytes_) return;
  const uint64_t last_byte = offset + std::min(bytes, disk_bytes_ - offset) - 1;
  const uint64_t end = (last_byte >> granularity_bits_) + 1;
  for (uint64_t bit = offset >> granularity_bits_; bit < end;) {
    const uint64_t chunk = bit / bits_per_chunk(), in_chunk = bit % bits_per_chunk();
    const uint64_t count = std::min(end - bit, bits_per_chunk() - in_chunk);
    if (!table_[chunk].is_all_ones() || changed_.contains(chunk)) set_bits(change(chunk).bits, in_chunk, count);
    bit += count;
  }
}

void BitmapBits::clear() {
  changed_.clear();
  std::ranges::fill(table_, BitmapTableEntry());
  table_changed_ = true;
}

uint64_t BitmapBits::last_kept(uint64_t disk_bytes) const {
  const uint64_t least = std::min(disk_bytes, disk_bytes_);
  return least == 0 ? 0 : ((least - 1) >> granularity_bits_) / bits_per_chunk();
}

void BitmapBits::resize(uint64_t disk_bytes) {
  disk_bytes_ = disk_bytes;
  bit_count_ = div_ceil(disk_bytes, granularity());
  table_.resize(div_ceil(bit_count_, bits_per_chunk()));
  table_changed_ = true;
  changed_.erase(changed_.lower_bound(table_.size()), changed_.end());
  if (table_.empty()) return;
  const auto last = changed_.find(table_.size() - 1);
  if (last != changed_.end()) mask_tail(last->first, last->second.bits);
}

void BitmapBits::settle(uint64_t chunk, std::span<const std::byte> bits) {
  changed_[chunk] = {.complete = true, .bits = {bits.begin(), bits.end()}};
}

std::vector<uint64_t> BitmapBits::changed_chunks() const {
  std::vector<uint64_t> chunks;
  chunks.reserve(changed_.size());
  for (const auto& [chunk, content] : changed_) chunks.push_back(chunk);
  return chunks;
}

// --- content ---------------------------------------------------------------------------------------------------------

bool BitmapBits::known_clear(uint64_t chunk) const { return table_[chunk].is_all_zeros() && !changed_.contains(chunk); }

HostOffset BitmapBits::cluster_of(uint64_t chunk) const {
  const auto changed = changed_.find(chunk);
  return changed != changed_.end() && changed->second.complete ? HostOffset(0) : table_[chunk].cluster();
}

void BitmapBits::compose(uint64_t chunk, std::span<std::byte> bits) const {
  if (cluster_of(chunk).v == 0) std::ranges::fill(bits, std::byte(table_[chunk].is_all_ones() ? 0xff : 0));
  if (const auto changed = changed_.find(chunk); changed != changed_.end()) {
    if (changed->second.complete) std::ranges::fill(bits, std::byte{0});
    add_bits(bits, changed->second.bits);
  }
  mask_tail(chunk, bits);
}

void BitmapBits::mask_tail(uint64_t chunk, std::span<std::byte> bits) const {
  const uint64_t used = bits_in(chunk);
  if (used == bits_per_chunk()) return;
  if (used % 8 != 0) bits[used / 8] &= std::byte(0xff >> (8 - used % 8));
  std::ranges::fill(bits.subspan(div_ceil(used, 8)), std::byte{0});
}

}  // namespace coimg::qcow2
