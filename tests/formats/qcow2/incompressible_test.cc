#include "formats/qcow2/incompressible.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace coimg::qcow2 {
namespace {

using Bytes = std::vector<std::byte>;

constexpr size_t kSizes[] = {16384, 65536, 131072, 2 << 20};

Bytes noise(size_t bytes, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  Bytes result(bytes);
  for (std::byte& byte : result) byte = static_cast<std::byte>(random());
  return result;
}

/// Noise of which each byte is one of the first `values`.
Bytes narrow_noise(size_t bytes, unsigned values) {
  std::mt19937_64 random(2);
  Bytes result(bytes);
  for (std::byte& byte : result) byte = static_cast<std::byte>(random() % values);
  return result;
}

TEST(IncompressibleTest, NoiseIs) {
  for (const size_t bytes : kSizes) {
    for (uint64_t seed = 0; seed < 100; ++seed) EXPECT_TRUE(is_incompressible(noise(bytes, seed))) << bytes;
  }
}

TEST(IncompressibleTest, OrdinaryDataIsNot) {
  for (const size_t bytes : kSizes) {
    EXPECT_FALSE(is_incompressible(Bytes(bytes))) << bytes;
    EXPECT_FALSE(is_incompressible(Bytes(bytes, std::byte{0xa5}))) << bytes;
    EXPECT_FALSE(is_incompressible(narrow_noise(bytes, 64))) << bytes;   // as base64
    EXPECT_FALSE(is_incompressible(narrow_noise(bytes, 240))) << bytes;  // not every byte occurs
  }
}

TEST(IncompressibleTest, NoiseThatRepeatsIsNot) {
  for (const size_t bytes : kSizes) {
    for (const size_t period : {100u, 512u, 2000u, 3500u, 3600u, 3800u, 4000u, 4020u, 4090u, 4096u}) {
      Bytes cluster = noise(bytes);
      for (size_t i = period; i < bytes; ++i) cluster[i] = cluster[i - period];
      EXPECT_FALSE(is_incompressible(cluster)) << bytes << " " << period;
    }
  }
}

TEST(IncompressibleTest, NoiseWithAPageTwiceIsNot) {
  constexpr size_t kPage = 4096;
  for (const size_t bytes : kSizes) {
    for (size_t page = 1; page < bytes / kPage; page += bytes / kPage / 4) {
      Bytes cluster = noise(bytes);
      std::copy_n(cluster.begin() + static_cast<ptrdiff_t>((page - 1) * kPage), kPage,
                  cluster.begin() + static_cast<ptrdiff_t>(page * kPage));
      EXPECT_FALSE(is_incompressible(cluster)) << bytes << " " << page;
    }
  }
}

TEST(IncompressibleTest, NoiseThatIsNarrowInAnEighthIsNot) {
  for (const size_t bytes : kSizes) {
    for (size_t at = 0; at < bytes; at += bytes / 8) {
      Bytes cluster = noise(bytes);
      std::ranges::copy(narrow_noise(bytes / 8, 64), cluster.begin() + static_cast<ptrdiff_t>(at));
      EXPECT_FALSE(is_incompressible(cluster)) << bytes << " " << at;
    }
  }
}

TEST(IncompressibleTest, NoiseWithSomethingElseInBetweenIsNot) {
  for (const size_t bytes : kSizes) {
    for (size_t at = 0; at < bytes; at += bytes / 16) {
      Bytes cluster = noise(bytes);
      std::fill_n(cluster.begin() + static_cast<ptrdiff_t>(at), 512, std::byte{0});
      EXPECT_FALSE(is_incompressible(cluster)) << bytes << " " << at;
    }
  }
}

TEST(IncompressibleTest, SmallClustersAreWorthATry) {
  for (size_t bytes = 512; bytes < kSizes[0]; bytes *= 2) EXPECT_FALSE(is_incompressible(noise(bytes))) << bytes;
}

}  // namespace
}  // namespace coimg::qcow2
