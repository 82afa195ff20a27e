// Tests block/io_vector.cc: pieces of memory as one row of bytes, and the search for zeros.
#include "block/io_vector.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/mem_driver.h"

namespace coimg {
namespace {

class IoVectorTest : public ::testing::Test {
 protected:
  IoVectorTest() {
    iov_.add(std::span(a_));
    iov_.add(std::span(b_).first(0));
    iov_.add(std::span(b_));
    iov_.add(std::span(c_));
  }
  std::vector<std::byte> joined() const {
    std::vector<std::byte> result(iov_.size());
    iov_.copy_to(0, result);
    return result;
  }

  std::vector<std::byte> a_ = std::vector<std::byte>(3), b_ = std::vector<std::byte>(5), c_ = std::vector<std::byte>(8);
  IoVector iov_;
};

TEST_F(IoVectorTest, LeavesOutEmptyPieces) {
  EXPECT_EQ(iov_.size(), 16u);
  EXPECT_EQ(iov_.pieces().size(), 3u);
  iov_.add(std::span<std::byte>());
  EXPECT_EQ(iov_.pieces().size(), 3u);
}

TEST_F(IoVectorTest, CopiesAnyRangeInAndOut) {
  const auto source = pattern(16);
  for (size_t offset = 0; offset <= 16; ++offset) {
    for (size_t bytes = 0; bytes <= 16 - offset; ++bytes) {
      iov_.fill(0, 16, std::byte{0});
      iov_.copy_from(offset, std::span(source).first(bytes));
      std::vector<std::byte> expected(16);
      std::copy_n(source.begin(), bytes, expected.begin() + static_cast<ptrdiff_t>(offset));
      ASSERT_EQ(joined(), expected) << offset << " + " << bytes;

      std::vector<std::byte> back(bytes);
      iov_.copy_to(offset, back);
      ASSERT_TRUE(std::equal(back.begin(), back.end(), source.begin())) << offset << " + " << bytes;
    }
  }
}

TEST_F(IoVectorTest, SlicesReferToTheSameMemory) {
  const auto source = pattern(16);
  iov_.copy_from(0, source);
  for (size_t offset = 0; offset <= 16; ++offset) {
    for (size_t bytes = 0; bytes <= 16 - offset; ++bytes) {
      const IoVector slice = iov_.slice(offset, bytes);
      ASSERT_EQ(slice.size(), bytes);
      std::vector<std::byte> content(bytes);
      slice.copy_to(0, content);
      ASSERT_TRUE(std::equal(content.begin(), content.end(), source.begin() + static_cast<ptrdiff_t>(offset)));
    }
  }
  iov_.slice(2, 2).fill(0, 2, std::byte{0});
  EXPECT_EQ(a_[2], std::byte{0});
  EXPECT_EQ(b_[0], std::byte{0});
}

TEST_F(IoVectorTest, IsZeroWhenAllPiecesAre) {
  EXPECT_TRUE(IoVector().is_zero());
  EXPECT_TRUE(iov_.is_zero());
  for (size_t i = 0; i < 16; ++i) {
    iov_.fill(i, 1, std::byte{1});
    EXPECT_FALSE(iov_.is_zero()) << i;
    iov_.fill(i, 1, std::byte{0});
  }
}

// Every length around the block sizes of the search, every position of the one byte that is set, and memory of any
// alignment with other data on both sides.
TEST(IsZero, FindsASingleBitWhereverItIs) {
  std::vector<std::byte> memory(1200, std::byte{0xff});
  for (size_t start : {0, 1, 7, 31}) {
    for (size_t bytes : {0, 1, 7, 8, 9, 15, 16, 17, 63, 255, 256, 257, 263, 264, 265, 511, 512, 1024, 1100}) {
      const auto range = std::span(memory).subspan(start, bytes);
      std::ranges::fill(range, std::byte{0});
      ASSERT_TRUE(is_zero(range)) << start << " + " << bytes;
      for (size_t i = 0; i < bytes; ++i) {
        range[i] = std::byte{0x80};
        ASSERT_FALSE(is_zero(range)) << start << " + " << bytes << " at " << i;
        range[i] = std::byte{0};
      }
      std::ranges::fill(range, std::byte{0xff});
    }
  }
}

}  // namespace
}  // namespace coimg
