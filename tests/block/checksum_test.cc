// Tests block/checksum.cc, block/tree_digest.cc and block/util/hasher.cc.
#include "block/checksum.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <string>
#include <vector>

#include "block/io_vector.h"
#include "block/tree_digest.h"
#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "formats/qcow2/driver.h"
#include "tests/support/fault_driver.h"
#include "tests/support/mem_driver.h"

namespace coimg {
namespace {

using Bytes = std::vector<std::byte>;
constexpr DigestAlgorithm kAll[] = {DigestAlgorithm::kSha256, DigestAlgorithm::kBlake2b, DigestAlgorithm::kXxh3};

std::string hash(DigestAlgorithm algorithm, std::string_view text) {
  Hasher hasher(algorithm);
  hasher.update(std::as_bytes(std::span(text)));
  return hasher.finish().text();
}

TEST(HasherTest, GivesTheDigestsThatArePublished) {
  EXPECT_EQ(hash(DigestAlgorithm::kSha256, "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash(DigestAlgorithm::kBlake2b, "abc"),
            "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
            "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923");
  EXPECT_EQ(hash(DigestAlgorithm::kXxh3, ""), "99aa06d3014798d86001c324468d497f");
}

TEST(HasherTest, AlgorithmsHaveNames) {
  for (const DigestAlgorithm algorithm : kAll) {
    EXPECT_EQ(find_digest_algorithm(digest_algorithm_name(algorithm)), algorithm);
  }
  EXPECT_FALSE(find_digest_algorithm("md5").has_value());
}

/// The tree in the plainest way: all of its digests, one row after the other.
std::string slow_tree(DigestAlgorithm algorithm, const Bytes& content) {
  const auto hash_of = [&](uint8_t role, std::span<const std::byte> first, std::span<const std::byte> second) {
    const std::byte byte{role};
    Hasher hasher(algorithm);
    hasher.update({&byte, 1});
    hasher.update(first);
    hasher.update(second);
    const Digest digest = hasher.finish();
    return Bytes(digest.bytes().begin(), digest.bytes().end());
  };
  Bytes padded = content;
  padded.resize(std::bit_ceil(std::max<uint64_t>(div_ceil(content.size(), kMiB), 1)) * kMiB);
  std::vector<Bytes> row;
  for (uint64_t at = 0; at < padded.size(); at += kMiB)
    row.push_back(hash_of(0, std::span(padded).subspan(at, kMiB), {}));
  while (row.size() > 1) {
    std::vector<Bytes> above;
    for (size_t i = 0; i < row.size(); i += 2) above.push_back(hash_of(1, row[i], row[i + 1]));
    row = std::move(above);
  }
  Bytes length(8);
  for (unsigned i = 0; i < 8; ++i) length[i] = std::byte(content.size() >> (56 - 8 * i) & 0xff);
  std::string text;
  for (const std::byte byte : hash_of(2, length, row[0])) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", std::to_integer<unsigned>(byte));
    text += digits;
  }
  return text;
}

/// Pieces with data, pieces that are zero in parts, and runs of zero pieces.
Bytes content_of(uint64_t bytes, uint64_t seed) {
  Bytes content(bytes);
  for (uint64_t at = 0; at < bytes; at += kMiB) {
    const uint64_t length = std::min(kMiB, bytes - at);
    if ((seed >> (at / kMiB % 16) & 1) == 0) continue;
    std::ranges::copy(pattern(length / 3, seed + at), content.begin() + static_cast<ptrdiff_t>(at + length / 4));
  }
  return content;
}

constexpr uint64_t kLengths[] = {0,        512,      kMiB - 512,     kMiB, kMiB + 512, 3 * kMiB, 4 * kMiB + 512,
                                 7 * kMiB, 8 * kMiB, 13 * kMiB - 512};

std::string checksum(BlockNode& node, const ChecksumOptions& options) coroutine_fn {
  auto digest = co_checksum(node, options);
  EXPECT_TRUE(digest.ok());
  return digest.ok() ? digest->text() : "";
}

TEST(ChecksumTest, TheTreeIsAsItIsDefined) {
  for (const uint64_t length : kLengths) {
    for (const DigestAlgorithm algorithm : kAll) {
      for (const unsigned workers : {1U, 3U, 16U}) {
        SCOPED_TRACE(std::to_string(length) + " bytes, " + std::to_string(workers) + " workers");
        const Bytes content = content_of(length, 0xa5c3 + length / kMiB);
        std::string found;
        run_in_main_loop([&]() coroutine_fn {
          const auto node = make_mem_node(std::make_shared<MemDisk>(content), {.yields = true});
          found = checksum(*node, {.algorithm = algorithm, .workers = workers});
          EXPECT_TRUE(node->co_close().ok());
        });
        EXPECT_EQ(found, slow_tree(algorithm, content));
      }
    }
  }
}

TEST(ChecksumTest, TheFlatDigestIsThatOfTheBytes) {
  for (const uint64_t length : kLengths) {
    for (const DigestAlgorithm algorithm : kAll) {
      const Bytes content = content_of(length, 0x2c5);
      std::string found;
      run_in_main_loop([&]() coroutine_fn {
        const auto node = make_mem_node(std::make_shared<MemDisk>(content), {.yields = true});
        found = checksum(*node, {.algorithm = algorithm, .flat = true});
        EXPECT_TRUE(node->co_close().ok());
      });
      EXPECT_EQ(found, hash(algorithm, {reinterpret_cast<const char*>(content.data()), content.size()}));
    }
  }
}

TEST(ChecksumTest, ZerosAreOneWhetherStoredOrNot) {
  const auto qcow2 = make_qcow2_driver_type();
  run_in_main_loop([&]() coroutine_fn {
    CreateOptions create(qcow2->create_options());
    EXPECT_TRUE(create.set("size", std::to_string(kTiB)).ok());
    std::vector<std::string> found;
    for (const bool stored : {false, true}) {
      auto file = make_mem_node(std::make_shared<MemDisk>());
      EXPECT_TRUE(qcow2->create(file.get(), "x", create).ok());
      const auto node = *open_format(*qcow2, std::move(file), {.writable = true});
      const Bytes zeros(3 * kMiB);
      if (stored) {
        EXPECT_TRUE(node->co_pwrite(500 * kGiB + 65536, zeros).ok());
      }
      found.push_back(checksum(*node, {}));
      EXPECT_TRUE(node->co_close().ok());
    }
    EXPECT_EQ(found[0], found[1]);
    EXPECT_EQ(found[0], "33b656c1cc3b348164961260f1e86fef155348ef90bb1c8712ae5f133abf9797");
  });
}

TEST(ChecksumTest, TheLengthCounts) {
  run_in_main_loop([&]() coroutine_fn {
    const auto one = make_mem_node(Bytes(512)), two = make_mem_node(Bytes(1024));
    EXPECT_NE(checksum(*one, {}), checksum(*two, {}));
    EXPECT_TRUE(one->co_close().ok());
    EXPECT_TRUE(two->co_close().ok());
  });
}

TEST(ChecksumTest, AReadErrorHasItsPlace) {
  for (const bool flat : {false, true}) {
    run_in_main_loop([&]() coroutine_fn {
      const auto node = make_fault_node(std::make_shared<MemDisk>(pattern(5 * kMiB)));
      fault_driver(*node).fail_range(4 * kMiB + 4096, 512, EIO, kOpRead);
      const auto digest = co_checksum(*node, {.flat = flat});
      ASSERT_FALSE(digest.ok());
      EXPECT_EQ(digest.error().errnum(), EIO);
      EXPECT_THAT(digest.error().message(), ::testing::StartsWith("error while reading at byte 4194304: "));
      EXPECT_TRUE(node->co_close().ok());
    });
  }
}

}  // namespace
}  // namespace coimg
