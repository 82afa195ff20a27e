#include "cmd/sizes.h"

#include <gtest/gtest.h>

namespace coimg {
namespace {

TEST(OperandSizeTest, TakesSuffixesAndFractions) {
  EXPECT_EQ(*parse_operand_size("1.5K", "image size"), 1536U);
  EXPECT_EQ(*parse_operand_size("010", "image size"), 10U);
  EXPECT_EQ(*parse_operand_size("9223372036854775807", "image size"), kMaxOperandSize);
  EXPECT_EQ(*parse_operand_size("7e", "image size"), uint64_t{7} << 60);
}

TEST(OperandSizeTest, SaysWhatIsWrongWithTheSyntax) {
  for (const char* text : {"", "1x", "1MB", "-1", "1e3k", "k", "1.5", ".5k"}) {
    SCOPED_TRACE(text);
    const auto size = parse_operand_size(text, "rate limit");
    ASSERT_FALSE(size.ok());
    EXPECT_EQ(size.error().message(),
              "Invalid rate limit specified. You may use k, M, G, T, P or E suffixes for\n"
              "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
  }
}

TEST(OperandSizeTest, SaysWhatTheRangeIs) {
  for (const char* text : {"8E", "16E", "9223372036854775808", "99999999999999999999999"}) {
    SCOPED_TRACE(text);
    const auto size = parse_operand_size(text, "start offset");
    ASSERT_FALSE(size.ok());
    EXPECT_EQ(size.error().message(), "Invalid start offset specified. Must be between 0 and 9223372036854775807.");
  }
}

TEST(CountTest, KnowsThreeBasesAndNoSuffix) {
  EXPECT_EQ(parse_count("16"), 16);
  EXPECT_EQ(parse_count("0x10"), 16);
  EXPECT_EQ(parse_count("010"), 8);
  EXPECT_EQ(parse_count("-1"), -1);
  EXPECT_EQ(parse_count(""), std::nullopt);
  EXPECT_EQ(parse_count("1k"), std::nullopt);
  EXPECT_EQ(parse_count("99999999999999999999"), std::nullopt);
}

}  // namespace
}  // namespace coimg
