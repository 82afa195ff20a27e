// Tests cmd/io/report.cc and arguments.cc: the shapes of numbers, bytes and words.
#include "cmd/io/report.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cmd/io/arguments.h"

namespace coimg {
namespace {

TEST(IoReportTest, SizesHaveThreeDigitsBehindThePointUnlessTheyAreZeros) {
  EXPECT_EQ(render_io_size(0), "0 bytes");
  EXPECT_EQ(render_io_size(1023), "1023 bytes");
  EXPECT_EQ(render_io_size(1024), "1 KiB");
  EXPECT_EQ(render_io_size(1536), "1.500 KiB");
  EXPECT_EQ(render_io_size(1 << 20), "1 MiB");
  EXPECT_EQ(render_io_size((1 << 20) + 512), "1 MiB") << "1.000 is 1";
  EXPECT_EQ(render_io_size(7.0 * (uint64_t{1} << 60)), "7 EiB");
  EXPECT_EQ(render_io_size(517.022073), "517.022073 bytes");
}

TEST(IoReportTest, TimesGrowHoursFromAMinuteOn) {
  const auto report = [](double seconds) {
    return render_io_report({.verb = "read", .offset = 5, .bytes = 512, .seconds = seconds});
  };
  EXPECT_EQ(report(0.5),
            "read 512/512 bytes at offset 5\n512 bytes, 1 ops; 00.50 sec (1 KiB/sec and 2.0000 ops/sec)\n");
  EXPECT_EQ(report(61.57),
            "read 512/512 bytes at offset 5\n512 bytes, 1 ops; 0:01:01.57 (8.315738 bytes/sec and 0.0162 ops/sec)\n");
  EXPECT_EQ(render_machine_report({.verb = "read", .offset = 5, .bytes = 512, .seconds = 3661.5}),
            "512,1,1:01:01.50,0.140,0.000\n");
}

TEST(IoReportTest, DumpsShowLettersAndDigitsOnly) {
  const std::string text = "ab_#\x7f Z09~0123456";
  EXPECT_EQ(render_dump(std::as_bytes(std::span(text)), 0xfffffff0),
            "fffffff0:  61 62 5f 23 7f 20 5a 30 39 7e 30 31 32 33 34 35  ab....Z09.012345\n"
            "100000000:  36  6\n");
}

TEST(IoArgumentsTest, OptionsMayFollowOperandsAndStopAtAMistake) {
  const std::vector<std::string> words = {"0", "-P", "5", "512", "-qx", "-v"};
  const IoArguments arguments = split_io_arguments("P:qv", words);
  ASSERT_EQ(arguments.options.size(), 2U);
  EXPECT_EQ(arguments.options[0].letter, 'P');
  EXPECT_EQ(arguments.options[0].value, "5");
  EXPECT_EQ(arguments.options[1].letter, 'q');
  EXPECT_EQ(arguments.mistake, "invalid option -- 'x'");
}

TEST(IoArgumentsTest, BlanksSeparateWordsAndNothingElseDoes) {
  EXPECT_EQ(split_io_line("  read  0\t5 '1 2' "), (std::vector<std::string>{"read", "0\t5", "'1", "2'"}));
  EXPECT_TRUE(split_io_line("   ").empty());
}

TEST(IoArgumentsTest, LengthsAreBoundedOneByOneAndTogether) {
  const std::vector<std::string> large = {"1G", "1G"}, larger = {"3G"}, fine = {"0", "1k"};
  EXPECT_EQ(parse_io_lengths(large).error().message(), "The total number of bytes exceed the maximum size 2147483136");
  EXPECT_EQ(parse_io_lengths(larger).error().message(), "Argument '3G' exceeds maximum size 2147483136");
  EXPECT_EQ(*parse_io_lengths(fine), (std::vector<uint64_t>{0, 1024}));
  EXPECT_FALSE(parse_io_pattern("256").ok());
  EXPECT_FALSE(parse_io_number("8E").ok());
}

}  // namespace
}  // namespace coimg
