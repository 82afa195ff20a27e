#include "tests/support/write_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "block/util/math.h"

namespace coimg {

namespace {

constexpr size_t kMaxSubsetEntries = 5;  ///< 32 subsets
constexpr size_t kTornPieces = 3;  ///< an entry is torn behind its first sector, in the middle, and before its last

uint64_t sectors_of(const LoggedIo& io) {
  if (io.op == kOpTruncate) return 1;
  return div_ceil(io.offset + io.bytes, kSectorSize) - io.offset / kSectorSize;
}

}  // namespace

void WriteLog::add_flush(size_t complete, uint64_t time) {
  entries_.insert(entries_.begin() + static_cast<ptrdiff_t>(complete), {.op = kOpFlush, .time = time});
}

size_t WriteLog::entries_until(uint64_t time) const {
  return static_cast<size_t>(std::ranges::upper_bound(entries_, time, {}, &LoggedIo::time) - entries_.begin());
}

size_t WriteLog::durable_until(size_t count) const {
  size_t durable = std::min(count, entries_.size());
  while (durable > 0 && entries_[durable - 1].op != kOpFlush) --durable;
  return durable;
}

std::vector<std::byte> WriteLog::bytes_after_crash(size_t count, const Survives& survives) const {
  count = std::min(count, entries_.size());
  const size_t durable = durable_until(count);
  std::vector<std::byte> result = initial_;
  for (size_t i = 0; i < count; ++i) {
    const LoggedIo& io = entries_[i];
    if (io.op == kOpFlush) continue;
    uint64_t nth = 0;
    const auto reached_disk = [&] { return i < durable || survives(i, nth); };
    if (io.op == kOpTruncate) {
      if (reached_disk()) result.resize(io.offset);
      continue;
    }
    for (uint64_t done = 0; done < io.bytes; ++nth) {
      const uint64_t position = io.offset + done;
      const uint64_t step = std::min(io.bytes - done, align_down(position, kSectorSize) + kSectorSize - position);
      if (reached_disk()) {
        // A discard does not extend the file; the others do.
        if (io.op != kOpDiscard && result.size() < position + step) result.resize(position + step);
        for (uint64_t k = 0; k < step && position + k < result.size(); ++k) {
          result[position + k] = io.op == kOpWrite ? io.data[done + k] : std::byte{0};
        }
      }
      done += step;
    }
  }
  return result;
}

std::vector<PowerLoss> power_losses(const WriteLog& log, size_t count, size_t most, uint64_t seed) {
  std::vector<size_t> pending;
  for (size_t i = log.durable_until(count); i < count; ++i) pending.push_back(i);

  std::vector<PowerLoss> losses;
  const auto add = [&](WriteLog::Survives survives, std::string what) {
    losses.push_back({count, std::move(survives), fmt::format("power lost behind I/O {}: {}", count, what)});
  };
  add([](size_t, uint64_t) { return false; }, "nothing unflushed is there");
  if (pending.empty()) return losses;
  add([](size_t, uint64_t) { return true; }, "all is there");

  if (pending.size() <= kMaxSubsetEntries) {
    for (unsigned mask = 1; mask + 1 < 1u << pending.size(); ++mask) {
      const size_t first = pending.front();
      add([=](size_t entry, uint64_t) { return (mask >> (entry - first) & 1) != 0; },
          fmt::format("the unflushed ones by mask {:#b}", mask));
    }
  } else {
    for (const size_t one : pending) {
      add([=](size_t entry, uint64_t) { return entry != one; }, fmt::format("all but {}", one));
      add([=](size_t entry, uint64_t) { return entry == one; }, fmt::format("only {}", one));
    }
  }
  for (const size_t torn : pending) {
    const uint64_t sectors = sectors_of(log.entries()[torn]);
    const uint64_t places[kTornPieces] = {1, sectors / 2, sectors - 1};
    for (size_t i = 0; i < kTornPieces; ++i) {
      const uint64_t written = places[i];
      if (written == 0 || written >= sectors || (i > 0 && written <= places[i - 1])) continue;
      for (const bool others : {false, true}) {
        add([=](size_t entry, uint64_t nth) { return entry == torn ? nth < written : others; },
            fmt::format("{} sectors of {}, {} of the others", written, torn, others ? "all" : "none"));
      }
    }
  }

  std::mt19937_64 random(seed + count);
  for (size_t i = losses.size(); i < most; ++i) {
    const uint64_t key = random();
    add(
        [key](size_t entry, uint64_t nth) {
          std::mt19937_64 coin(key ^ (entry << 32) ^ nth);
          return (coin() & 1) != 0;
        },
        fmt::format("single sectors, choice {:#x}", key));
  }
  std::ranges::shuffle(losses, random);
  losses.resize(std::max<size_t>(std::min(most, losses.size()), 1));
  return losses;
}

}  // namespace coimg
