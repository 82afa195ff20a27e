#include "formats/qcow2/compressed.h"

#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace coimg::qcow2 {
namespace {

using Bytes = std::vector<std::byte>;

/// Words in random order, with matches near and far.
Bytes text(size_t bytes, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::string content;
  while (content.size() < bytes) {
    content += "word" + std::to_string(random() % 5000) + (random() % 9 == 0 ? "\n" : " ");
  }
  Bytes result(bytes);
  std::memcpy(result.data(), content.data(), bytes);
  return result;
}

Bytes noise(size_t bytes) {
  std::mt19937_64 random(3);
  Bytes result(bytes);
  for (std::byte& byte : result) byte = static_cast<std::byte>(random());
  return result;
}

Bytes compressed(CompressionType type, const Bytes& cluster, unsigned level = 0) {
  Bytes stream(cluster.size());
  const auto bytes = compress_cluster(type, level, cluster, stream);
  EXPECT_TRUE(bytes.ok() && bytes->has_value());
  stream.resize(bytes.ok() ? bytes->value_or(0) : 0);
  return stream;
}

Bytes with_zlib(const Bytes& content, int window_bits) {
  Bytes stream(compressBound(content.size()) + 64);
  z_stream state{};
  EXPECT_EQ(deflateInit2(&state, Z_DEFAULT_COMPRESSION, Z_DEFLATED, window_bits, 9, Z_DEFAULT_STRATEGY), Z_OK);
  state.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(content.data()));
  state.avail_in = static_cast<uInt>(content.size());
  state.next_out = reinterpret_cast<Bytef*>(stream.data());
  state.avail_out = static_cast<uInt>(stream.size());
  EXPECT_EQ(deflate(&state, Z_FINISH), Z_STREAM_END);
  stream.resize(state.total_out);
  deflateEnd(&state);
  return stream;
}

Bytes with_zstd(const Bytes& content) {
  Bytes stream(ZSTD_compressBound(content.size()));
  stream.resize(ZSTD_compress(stream.data(), stream.size(), content.data(), content.size(), 3));
  return stream;
}

/// Decodes in small pieces with a window of 4 KiB, which matches that reach further back do not survive.
bool decodes_with_small_window(const Bytes& stream, const Bytes& expected) {
  z_stream state{};
  EXPECT_EQ(inflateInit2(&state, -12), Z_OK);
  Bytes decoded;
  Bytes piece(1000);
  int status = Z_OK;
  state.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(stream.data()));
  state.avail_in = static_cast<uInt>(stream.size());
  while (status == Z_OK) {
    state.next_out = reinterpret_cast<Bytef*>(piece.data());
    state.avail_out = static_cast<uInt>(piece.size());
    status = inflate(&state, Z_NO_FLUSH);
    decoded.insert(decoded.end(), piece.begin(), piece.end() - state.avail_out);
  }
  inflateEnd(&state);
  return status == Z_STREAM_END && decoded == expected;
}

::testing::AssertionResult decodes(CompressionType type, const Bytes& stream, const Bytes& expected) {
  Bytes cluster(expected.size());
  const auto result = decompress_cluster(type, stream, cluster);
  if (!result.ok()) return ::testing::AssertionFailure() << result.error().message();
  return cluster == expected ? ::testing::AssertionSuccess() : ::testing::AssertionFailure() << "other bytes";
}

class CompressedClusterTest : public ::testing::TestWithParam<CompressionType> {};

TEST_P(CompressedClusterTest, ComesBackInEverySize) {
  for (size_t bytes = 512; bytes <= 2 << 20; bytes *= 2) {
    for (const Bytes& cluster : {text(bytes), Bytes(bytes), Bytes(bytes, std::byte{'x'})}) {
      const Bytes stream = compressed(GetParam(), cluster);
      EXPECT_TRUE(decodes(GetParam(), stream, cluster)) << bytes;
      Bytes padded = stream;  // up to the end of the sector: other streams
      padded.resize(stream.size() + 511, std::byte{0x5a});
      EXPECT_TRUE(decodes(GetParam(), padded, cluster)) << bytes;
    }
  }
}

TEST_P(CompressedClusterTest, NoiseIsNotCompressed) {
  for (const size_t bytes : {512u, 65536u, 2u << 20}) {
    Bytes stream(bytes);
    const auto result = compress_cluster(GetParam(), 0, noise(bytes), stream);
    ASSERT_TRUE(result.ok());
    EXPECT_FALSE(result->has_value());
  }
}

TEST_P(CompressedClusterTest, EachLevelDecodesAndTheLastIsSmallest) {
  constexpr unsigned kMaxLevel = 19;
  const Bytes cluster = text(65536);
  const size_t smallest = compressed(GetParam(), cluster, kMaxLevel).size();
  for (unsigned level = 1; level <= kMaxLevel; ++level) {
    const Bytes stream = compressed(GetParam(), cluster, level);
    EXPECT_TRUE(decodes(GetParam(), stream, cluster)) << level;
    EXPECT_GE(stream.size(), smallest) << level;
  }
  EXPECT_GT(compressed(GetParam(), cluster, 1).size(), smallest);
}

TEST(CompressedClusterZlibTest, LevelSixGivesQemusBytes) {
  constexpr int kQemusWindow = -12;
  const Bytes cluster = text(65536);
  EXPECT_EQ(compressed(CompressionType::kZlib, cluster, 6), with_zlib(cluster, kQemusWindow));
}

TEST(CompressedClusterZstdTest, TheDefaultIsAboutAsSmallAsLevelThree) {
  for (const size_t bytes : {4096u, 65536u, 131072u, 2u << 20}) {
    const size_t level_three = compressed(CompressionType::kZstd, text(bytes), 3).size();
    EXPECT_LE(compressed(CompressionType::kZstd, text(bytes)).size(), level_three * 103 / 100) << bytes;
    // The encoder forgets what it was set to before.
    EXPECT_EQ(compressed(CompressionType::kZstd, text(bytes), 3).size(), level_three);
  }
}

TEST_P(CompressedClusterTest, GivesTheSameBytesEachTime) {
  const Bytes cluster = text(65536);
  const Bytes first = compressed(GetParam(), cluster);
  compressed(GetParam(), text(65536, 2));
  EXPECT_EQ(compressed(GetParam(), cluster), first);
}

TEST_P(CompressedClusterTest, ACutStreamIsAnError) {
  const Bytes cluster = text(4096);
  Bytes stream = compressed(GetParam(), cluster);
  Bytes decoded(cluster.size());
  while (stream.size() > 20) {
    stream.resize(stream.size() - 20);
    const auto result = decompress_cluster(GetParam(), stream, decoded);
    ASSERT_FALSE(result.ok()) << stream.size();
    EXPECT_EQ(result.error().errnum(), EIO);
  }
}

TEST_P(CompressedClusterTest, DamageEndsInAnErrorOrInBytes) {
  const Bytes cluster = text(4096);
  const Bytes sound = compressed(GetParam(), cluster);
  Bytes decoded(cluster.size());
  for (size_t bit = 0; bit < sound.size() * 8; ++bit) {
    Bytes stream = sound;
    stream[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    (void)decompress_cluster(GetParam(), stream, decoded).ok();
  }
}

INSTANTIATE_TEST_SUITE_P(Both, CompressedClusterTest, ::testing::Values(CompressionType::kZlib, CompressionType::kZstd),
                         [](const auto& test) { return test.param == CompressionType::kZstd ? "zstd" : "zlib"; });

TEST(DeflateTest, KeepsToAWindowOf4KiB) {
  for (size_t bytes = 4096; bytes <= 2 << 20; bytes *= 2) {
    Bytes cluster = text(bytes);
    // Repeats at distances around the window.
    for (size_t at = 4096 + 300; at + 64 <= bytes; at += 700) {
      std::copy_n(cluster.begin() + static_cast<ptrdiff_t>(at - 4096 - 300 + at % 600), 64,
                  cluster.begin() + static_cast<ptrdiff_t>(at));
    }
    EXPECT_TRUE(decodes_with_small_window(compressed(CompressionType::kZlib, cluster), cluster)) << bytes;
  }
  const Bytes far = text(65536);
  EXPECT_FALSE(decodes_with_small_window(with_zlib(far, -15), far)) << "else this test sees nothing";
}

TEST(DeflateTest, ReadsLargeWindows) {
  const Bytes cluster = text(65536);
  EXPECT_TRUE(decodes(CompressionType::kZlib, with_zlib(cluster, -15), cluster));
}

TEST(DeflateTest, AStreamThatGoesOnIsCut) {
  Bytes longer = text(70000);
  const Bytes stream = with_zlib(longer, -12);
  longer.resize(65536);
  EXPECT_TRUE(decodes(CompressionType::kZlib, stream, longer));
}

TEST(DeflateTest, AStreamThatEndsEarlyIsAnError) {
  Bytes cluster(65536);
  EXPECT_FALSE(decompress_cluster(CompressionType::kZlib, with_zlib(text(65535), -12), cluster).ok());
}

TEST(DeflateTest, AZlibHeaderIsAnError) {
  Bytes cluster(65536);
  EXPECT_FALSE(decompress_cluster(CompressionType::kZlib, with_zlib(text(65536), 12), cluster).ok());
}

TEST(ZstdTest, StoresTheContentSizeAndNoChecksum) {
  const Bytes stream = compressed(CompressionType::kZstd, text(65536));
  const uint8_t head[] = {0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x00, 0xff};
  EXPECT_EQ(std::memcmp(stream.data(), head, sizeof head), 0);
}

TEST(ZstdTest, FramesMayFollowEachOther) {
  const Bytes cluster = text(65536);
  Bytes stream;
  const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c'};
  auto append = [&stream](std::span<const std::byte> part) { stream.insert(stream.end(), part.begin(), part.end()); };
  append(with_zstd({cluster.begin(), cluster.begin() + 1000}));
  append(std::as_bytes(std::span(skippable)));
  append(with_zstd({cluster.begin() + 1000, cluster.end()}));
  EXPECT_TRUE(decodes(CompressionType::kZstd, stream, cluster));
}

TEST(ZstdTest, AFrameThatGoesOnIsAnError) {
  Bytes cluster(65536);
  EXPECT_FALSE(decompress_cluster(CompressionType::kZstd, with_zstd(text(70000)), cluster).ok());
}

}  // namespace
}  // namespace coimg::qcow2
