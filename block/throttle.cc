#include "block/throttle.h"

#include <algorithm>
#include <cassert>

#include "coroutine/co_sleep.h"

namespace coimg {
namespace {

constexpr uint64_t kNsPerSecond = 1'000'000'000;
/// The longest that one request may block the others: keeps the sum of times far from overflow.
constexpr int64_t kMaxCostNs = int64_t{1} << 56;  // over two years

constexpr int64_t kLiftedCheckNs = 100'000'000;

int64_t cost_ns(uint64_t bytes, uint64_t bytes_per_second) {
  const auto cost = static_cast<unsigned __int128>(bytes) * kNsPerSecond / bytes_per_second;
  return cost > static_cast<uint64_t>(kMaxCostNs) ? kMaxCostNs : static_cast<int64_t>(cost);
}

}  // namespace

RateLimiter::RateLimiter(uint64_t bytes_per_second, ClockType clock, std::function<bool()> lifted)
    : bytes_per_second_(bytes_per_second), clock_(clock), lifted_(std::move(lifted)), free_at_ns_(clock_now_ns(clock)) {
  assert(bytes_per_second > 0);
}

void RateLimiter::take(uint64_t bytes) {
  // Whoever comes books the time behind those who came before, and sleeps until the bucket has been paid off by then.
  // Time left unused counts up to the size of the bucket: sleeps that end late do not lower the average.
  const int64_t now = clock_now_ns(clock_);
  const int64_t start = std::max(free_at_ns_, now - kBurstNs);
  free_at_ns_ = start + std::min(cost_ns(bytes, bytes_per_second_), INT64_MAX - start);
  for (int64_t wait = start - now; wait > 0; wait = start - clock_now_ns(clock_)) {
    if (lifted_ && lifted_()) return;
    co_sleep_ns(clock_, lifted_ ? std::min(wait, kLiftedCheckNs) : wait);
  }
}

}  // namespace coimg
