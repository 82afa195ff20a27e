// Random runs that lose power at every point: what they have in common, whatever the format.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "coroutine/main_loop.h"
#include "tests/crash/suite.h"
#include "tests/support/fault_driver.h"

namespace coimg::crash {

using Bytes = std::vector<std::byte>;

/// The guest's view after one operation.
struct Version {
  Bytes content;
  bool flush = false;  ///< all of it is durable
  uint64_t end = 0;    ///< the time when the operation had returned
};

/// The versions of a run, of which each is a Version or more. Its time starts with the object.
template <typename AnyVersion = Version>
class History {
 public:
  void record(AnyVersion version) {
    version.end = FaultDriver::now();
    versions_.push_back(std::move(version));
  }
  [[nodiscard]] uint64_t ios() const { return FaultDriver::now() - begin_; }
  [[nodiscard]] uint64_t time_after(uint64_t ios) const { return begin_ + ios; }

  /// What may be seen when the power goes: from the last flush that was complete to the operation that was under way.
  [[nodiscard]] std::span<const AnyVersion> possible_at(uint64_t time) const {
    size_t last = 0;
    while (last + 1 < versions_.size() && versions_[last].end < time) ++last;
    // An operation that had returned without writing anything may have done so before or after the cut.
    while (last + 1 < versions_.size() && versions_[last + 1].end <= time) ++last;
    size_t first = last;
    while (!(versions_[first].flush && versions_[first].end <= time)) --first;
    return std::span(versions_).subspan(first, last - first + 1);
  }

 private:
  uint64_t begin_ = FaultDriver::now();
  std::vector<AnyVersion> versions_;
};

/// Each byte has to be that of one of the versions.
template <typename AnyVersion>
void expect_allowed(const Bytes& seen, std::span<const AnyVersion> versions) {
  size_t length = seen.size();
  for (const AnyVersion& version : versions) length = std::min(length, version.content.size());
  for (size_t at = 0; at < length; ++at) {
    const auto same = [&](const AnyVersion& version) { return version.content[at] == seen[at]; };
    ASSERT_TRUE(std::ranges::any_of(versions, same))
        << "byte " << at << " is neither what was flushed nor what was written since";
  }
}

/// Up to `most` ways in which a file on a FaultDriver may have lost what it was told by then, and the file after one.
inline std::vector<PowerLoss> power_losses_at(const BlockNode& file, uint64_t time, size_t most, uint64_t seed) {
  const WriteLog& log = fault_driver(file).write_log();
  return power_losses(log, log.entries_until(time), most, seed);
}
inline std::shared_ptr<MemDisk> after_loss(const BlockNode& file, const PowerLoss& loss) {
  return std::make_shared<MemDisk>(fault_driver(file).write_log().bytes_after_crash(loss.count, loss.survives));
}

/// Makes runs until images_per_case() images have been tried, and cuts the power all over each of them.
///
/// `Run` has a constructor (kind, seed), usable(), step() for a random operation, close(), ios(), and crash_at(ios,
/// most, seed), which looks at the image after power losses at this point and returns how many there were.
template <typename Run, typename Kind>
void cut_power_everywhere(const Kind& kind) {
  constexpr int kSteps = 60;
  constexpr size_t kCutsPerRun = 120, kWaysPerCut = 40;
  const auto failed = [] { return testing::Test::HasFailure(); };
  uint64_t seed = crash::seed();
  for (size_t left = images_per_case(); left > 0 && !failed(); ++seed) {
    SCOPED_TRACE(testing::Message() << "COIMG_TEST_SEED=" << seed);
    run_in_main_loop([&]() coroutine_fn {
      Run run(kind, seed);
      ASSERT_TRUE(run.usable());
      for (int step = 0; step < kSteps && !failed(); ++step) run.step();
      const uint64_t ios = run.ios();
      const uint64_t distance = 1 + ios / std::min(left, kCutsPerRun);
      const size_t ways = std::clamp<size_t>(left / (ios / distance + 1), 1, kWaysPerCut);
      for (uint64_t cut = seed % distance; cut <= ios && left > 0 && !failed(); cut += distance) {
        left -= std::min(left, run.crash_at(cut, ways, seed));
      }
      run.close();
    });
  }
}

}  // namespace coimg::crash
