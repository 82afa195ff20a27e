// Two questions. Do all bytes occur equally often, so that no code for them is shorter than they are? A sample answers
// that, mostly with no. And does nothing repeat within deflate's window? zstd's fastest search, which hurries past what
// does not, sees to that; in small pieces, as it takes a gain of less than a sixtieth for none.
#include "formats/qcow2/incompressible.h"

#include <zstd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>

namespace coimg::qcow2 {

namespace {

constexpr size_t kSampleBytes = 4096;
constexpr size_t kSamplePieceBytes = 64;
constexpr size_t kByteValues = 256;

/// Less would say little about 256 values.
constexpr size_t kLeastClusterBytes = 4 * kSampleBytes;

/// For bytes at random the sum below is 255, give or take 23. A code that saves half a per cent of the bytes has
/// bytes that occur so unequally that it is 180 more.
constexpr double kMostChiSquare = 380;

constexpr int kSearchLevel = -1;
/// What deflate finds in its window of 4 KiB lies in one of these pieces, which overlap by that.
constexpr size_t kSearchBytes = 8192, kSearchStep = 4096;

/// The sample of a larger part would be too thin.
constexpr size_t kPartBytes = 65536;

/// Pearson's chi-square test of a sample that is spread over the part.
bool has_equally_frequent_bytes(std::span<const std::byte> part) {
  // Four, as a counter that has just been written cannot be read at once.
  std::array<std::array<uint16_t, kByteValues>, 4> counts{};
  constexpr size_t kPieces = kSampleBytes / kSamplePieceBytes;
  const size_t step = part.size() / kPieces;
  for (size_t piece = 0; piece < kPieces; ++piece) {
    const auto bytes = part.subspan(piece * step, kSamplePieceBytes);
    for (size_t i = 0; i < bytes.size(); ++i) ++counts[i % counts.size()][static_cast<uint8_t>(bytes[i])];
  }
  constexpr double kExpected = double{kSampleBytes} / kByteValues;
  double sum = 0;
  for (size_t value = 0; value < kByteValues; ++value) {
    const double difference = counts[0][value] + counts[1][value] + counts[2][value] + counts[3][value] - kExpected;
    sum += difference * difference;
  }
  return sum / kExpected <= kMostChiSquare;
}

bool has_no_repetitions(std::span<const std::byte> cluster) {
  struct Free {
    void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  };
  static thread_local const std::unique_ptr<ZSTD_CCtx, Free> context(ZSTD_createCCtx());
  if (!context) return false;
  // Without room for a stream that is not shorter.
  std::array<std::byte, kSearchBytes - 1> stream;
  for (size_t from = 0; from + kSearchBytes <= cluster.size(); from += kSearchStep) {
    const auto piece = cluster.subspan(from, kSearchBytes);
    if (!ZSTD_isError(
            ZSTD_compressCCtx(context.get(), stream.data(), stream.size(), piece.data(), piece.size(), kSearchLevel))) {
      return false;
    }
  }
  return true;
}

}  // namespace

bool is_incompressible(std::span<const std::byte> cluster) {
  if (cluster.size() < kLeastClusterBytes) return false;
  for (size_t from = 0; from < cluster.size(); from += kPartBytes) {
    if (!has_equally_frequent_bytes(cluster.subspan(from, std::min(kPartBytes, cluster.size() - from)))) return false;
  }
  return has_no_repetitions(cluster);
}

}  // namespace coimg::qcow2
