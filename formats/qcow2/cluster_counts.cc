#include "formats/qcow2/cluster_counts.h"

#include <algorithm>
#include <utility>

#include "block/util/math.h"

namespace coimg::qcow2 {

namespace {

/// Loops over blocks of this size have no branches inside, so that they become vector code.
constexpr size_t kBlock = 32;

uint8_t largest_count(std::span<const uint8_t> counters) {
  std::array<uint8_t, kBlock> largest{};
  for (; counters.size() >= kBlock; counters = counters.subspan(kBlock)) {
    for (size_t i = 0; i < kBlock; ++i) {
      largest[i] = std::max<uint8_t>(largest[i], counters[i] & ClusterCounts::kCountMask);
    }
  }
  for (const uint8_t counter : counters)
    largest[0] = std::max<uint8_t>(largest[0], counter & ClusterCounts::kCountMask);
  return *std::ranges::max_element(largest);
}

void add_and_mark(std::span<uint8_t> counters, uint8_t times, uint8_t marks) {
  for (; counters.size() >= kBlock; counters = counters.subspan(kBlock)) {
    for (size_t i = 0; i < kBlock; ++i) counters[i] = static_cast<uint8_t>((counters[i] + times) | marks);
  }
  for (uint8_t& counter : counters) counter = static_cast<uint8_t>((counter + times) | marks);
}

}  // namespace

// --- up to four different counters ----------------------------------------------------------------------------------

uint64_t ClusterCounts::Packed::mask(size_t begin, size_t end) {
  const uint64_t below_end = end == kSlotsPerWord ? ~uint64_t{0} : (uint64_t{1} << (end * kSlotBits)) - 1;
  return below_end & ~((uint64_t{1} << (begin * kSlotBits)) - 1);
}

template <typename Words, typename Visit>
bool ClusterCounts::Packed::for_each_word(Words& words, size_t index, size_t count, Visit visit) {
  while (count != 0) {
    const size_t begin = index % kSlotsPerWord;
    const size_t run = std::min<size_t>(count, kSlotsPerWord - begin);
    if (!visit(words[index / kSlotsPerWord], mask(begin, begin + run))) return false;
    index += run;
    count -= run;
  }
  return true;
}

unsigned ClusterCounts::Packed::take_slot(Counter value) {
  unsigned free = kSlots;
  for (unsigned slot = 0; slot < kSlots; ++slot) {
    if (clusters_[slot] == 0) {
      free = slot;
    } else if (values_[slot] == value) {
      return slot;
    }
  }
  if (free != kSlots) values_[free] = value;
  return free;
}

bool ClusterCounts::Packed::set_row(size_t index, size_t count, Counter value) {
  const unsigned from = slot(index);
  unsigned to = take_slot(value);
  if (to == kSlots) {
    if (clusters_[from] != count) return false;
    values_[from] = value;  // which has no counter left
    to = from;
  }
  clusters_[from] = static_cast<uint16_t>(clusters_[from] - count);
  clusters_[to] = static_cast<uint16_t>(clusters_[to] + count);
  const uint64_t all = ~uint64_t{0} / (kSlots - 1) * to;
  return for_each_word(words_, index, count, [all](uint64_t& word, uint64_t bits) {
    word = (word & ~bits) | (all & bits);
    return true;
  });
}

bool ClusterCounts::Packed::is_row(size_t index, size_t count) const {
  const uint64_t all = ~uint64_t{0} / (kSlots - 1) * slot(index);
  return for_each_word(words_, index, count,
                       [all](uint64_t word, uint64_t bits) { return ((word ^ all) & bits) == 0; });
}

void ClusterCounts::Packed::read(size_t index, std::span<uint8_t> to) const {
  std::array<uint8_t, kSlots> narrow;
  std::ranges::transform(values_, narrow.begin(), &Counter::narrow);
  for (size_t i = 0; i < to.size(); ++i) to[i] = narrow[slot(index + i)];
}

// --- a byte a cluster -----------------------------------------------------------------------------------------------

uint64_t ClusterCounts::Bytes::get(size_t index) const {
  const uint8_t count = narrow[index] & kCountMask;
  if (count != kNarrowMax) return count;
  return wide->counts[index] == kWideMax ? wide->huge[index] : wide->counts[index];
}

void ClusterCounts::Bytes::set(size_t index, uint64_t count, uint8_t marks) {
  narrow[index] = static_cast<uint8_t>(std::min<uint64_t>(count, kNarrowMax) | marks);
  if (count < kNarrowMax) return;
  if (!wide) wide = std::make_unique<Wide>();
  wide->counts[index] = static_cast<uint16_t>(std::min<uint64_t>(count, kWideMax));
  if (count < kWideMax) return;
  if (!wide->huge) wide->huge = std::make_unique<uint64_t[]>(kPieceClusters);
  wide->huge[index] = count;
}

// --- pieces ---------------------------------------------------------------------------------------------------------

ClusterCounts::ClusterCounts(uint64_t limit, uint64_t max)
    : limit_(limit),
      max_(max),
      quick_max_(static_cast<uint8_t>(std::min<uint64_t>(max, kNarrowMax - 1))),
      counter_max_(std::min(max, Counter::kMaxCount)),
      pieces_(div_ceil(limit, kPieceClusters)) {}

ClusterCounts::Bytes& ClusterCounts::make_bytes(Piece& piece) {
  if (const auto* there = std::get_if<std::unique_ptr<Bytes>>(&piece)) return **there;
  auto bytes = std::make_unique<Bytes>();
  const auto* packed = std::get_if<std::unique_ptr<Packed>>(&piece);
  for (size_t i = 0; i < kPieceClusters; ++i) {
    const Counter counter = packed ? (*packed)->get(i) : std::get<Uniform>(piece);
    bytes->set(i, counter.count, counter.marks);
  }
  return *piece.emplace<std::unique_ptr<Bytes>>(std::move(bytes));
}

/// Sets `count` counters, which are all the same so far.
void ClusterCounts::store_row(Piece& piece, size_t index, size_t count, Counter counter) {
  if (const Uniform* uniform = std::get_if<Uniform>(&piece)) {
    if (*uniform == counter) return;
    if (count == kPieceClusters) {
      piece = counter;
      return;
    }
    piece = std::make_unique<Packed>(*uniform);
  }
  if (const auto* packed = std::get_if<std::unique_ptr<Packed>>(&piece)) {
    if ((*packed)->set_row(index, count, counter)) {
      if ((*packed)->is_uniform(index)) piece = counter;
      return;
    }
  }
  Bytes& bytes = make_bytes(piece);
  for (size_t i = 0; i < count; ++i) bytes.set(index + i, counter.count, counter.marks);
}

/// Adds references to each counter as far as that is quick; returns to how many.
size_t ClusterCounts::add_row_in_piece(Piece& piece, size_t index, size_t count, uint64_t times, uint8_t marks) const {
  if (const auto* bytes = std::get_if<std::unique_ptr<Bytes>>(&piece)) {
    const std::span<uint8_t> counters = std::span((*bytes)->narrow).subspan(index, count);
    if (times > quick_max_ || largest_count(counters) > quick_max_ - times) return 0;
    add_and_mark(counters, static_cast<uint8_t>(times), marks);
    return count;
  }
  const auto* packed = std::get_if<std::unique_ptr<Packed>>(&piece);
  const Counter first = packed ? (*packed)->get(index) : std::get<Uniform>(piece);
  if (times > counter_max_ || first.count > counter_max_ - times) return 0;
  const size_t row = !packed || (*packed)->is_row(index, count) ? count : 1;
  store_row(piece, index, row, {.count = first.count + times, .marks = static_cast<uint8_t>(first.marks | marks)});
  return row;
}

/// Sets the whole of a counter, whatever its width.
void ClusterCounts::store(HostCluster cluster, uint64_t count, uint8_t marks) {
  Piece& piece = piece_of(cluster);
  const size_t index = index_in_piece(cluster);
  if (count <= Counter::kMaxCount) {
    store_row(piece, index, 1, {.count = count, .marks = marks});
  } else {
    make_bytes(piece).set(index, count, marks);
  }
}

// --- clusters -------------------------------------------------------------------------------------------------------

uint64_t ClusterCounts::add(HostCluster cluster, uint64_t times, uint8_t marks) {
  if (add_row_in_piece(piece_of(cluster), index_in_piece(cluster), 1, times, marks) == 1) [[likely]]
    return 0;
  const uint64_t count = get(cluster);
  const uint64_t fitting = std::min(times, max_ - std::min(count, max_));
  store(cluster, count + fitting, this->marks(cluster) | marks);
  return times - fitting;
}

uint64_t ClusterCounts::add_row(HostCluster first, uint64_t count, uint64_t times, uint8_t marks) {
  assert(first.v <= limit_ && count <= limit_ - first.v);
  for (uint64_t done = 0; done < count;) {
    const size_t index = index_in_piece(first + done);
    const size_t wanted = std::min<uint64_t>(count - done, kPieceClusters - index);
    const size_t added = add_row_in_piece(piece_of(first + done), index, wanted, times, marks);
    if (added == 0) return done;
    done += added;
  }
  return count;
}

uint64_t ClusterCounts::get(HostCluster cluster) const {
  const Piece& piece = piece_of(cluster);
  const size_t index = index_in_piece(cluster);
  if (const Uniform* uniform = std::get_if<Uniform>(&piece)) return uniform->count;
  if (const auto* packed = std::get_if<std::unique_ptr<Packed>>(&piece)) return (*packed)->get(index).count;
  return std::get<std::unique_ptr<Bytes>>(piece)->get(index);
}

void ClusterCounts::set(HostCluster cluster, uint64_t value) { store(cluster, value, marks(cluster)); }

uint8_t ClusterCounts::marks(HostCluster cluster) const {
  uint8_t counter = 0;
  read(cluster, {&counter, 1});
  return counter & static_cast<uint8_t>(~kCountMask);
}

void ClusterCounts::read(HostCluster first, std::span<uint8_t> to) const {
  const Piece& piece = piece_of(first);
  const size_t index = index_in_piece(first);
  assert(to.size() <= kPieceClusters - index);
  if (const Uniform* uniform = std::get_if<Uniform>(&piece)) {
    std::ranges::fill(to, uniform->narrow());
  } else if (const auto* packed = std::get_if<std::unique_ptr<Packed>>(&piece)) {
    (*packed)->read(index, to);
  } else {
    const auto& narrow = std::get<std::unique_ptr<Bytes>>(piece)->narrow;
    std::copy_n(narrow.begin() + static_cast<ptrdiff_t>(index), to.size(), to.begin());
  }
}

bool ClusterCounts::any(HostCluster first, HostCluster end) const {
  end.v = std::min(end.v, limit_);
  std::array<uint8_t, kPieceClusters> counters;
  while (first < end) {
    const std::span<uint8_t> run(counters.data(), std::min(end.v - first.v, kPieceClusters - index_in_piece(first)));
    if (!untouched(first, first + 1)) {
      read(first, run);
      if (std::ranges::any_of(run, [](uint8_t counter) { return (counter & kCountMask) != 0; })) return true;
    }
    first += run.size();
  }
  return false;
}

bool ClusterCounts::untouched(HostCluster first, HostCluster end) const {
  end.v = std::min(end.v, limit_);
  if (first >= end) return true;
  const std::span<const Piece> touched =
      std::span(pieces_).subspan(first.v >> kPieceBits, div_ceil(end.v, kPieceClusters) - (first.v >> kPieceBits));
  return std::ranges::all_of(touched, [](const Piece& piece) {
    const Uniform* uniform = std::get_if<Uniform>(&piece);
    return uniform && *uniform == Uniform{};
  });
}

HostCluster ClusterCounts::find_free(HostCluster from) const {
  while (from.v < limit_ && get(from) != 0) {
    const bool all_used = std::holds_alternative<Uniform>(piece_of(from));
    from.v = all_used ? align_down(from.v, kPieceClusters) + kPieceClusters : from.v + 1;
  }
  return HostCluster(std::min(from.v, limit_));
}

}  // namespace coimg::qcow2
