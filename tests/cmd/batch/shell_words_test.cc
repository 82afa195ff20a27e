#include "cmd/batch/shell_words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace coimg {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ShellWordsTest, SplitsAsAShellDoes) {
  const auto split = [](const char* text) { return split_shell_words(text).value(); };
  EXPECT_THAT(split(""), ElementsAre());
  EXPECT_THAT(split(" info\t a.raw \n"), ElementsAre("info", "a.raw"));
  EXPECT_THAT(split("'a b' \"c d\" e\\ f"), ElementsAre("a b", "c d", "e f"));
  EXPECT_THAT(split("a'b'\"c\"d ''"), ElementsAre("abcd", ""));
  EXPECT_THAT(split("'\\' \"\\\\ \\\" \\$ \\x '\""), ElementsAre("\\", "\\ \" $ \\x '"));
  EXPECT_THAT(split("'a|b$c' \\; * ? # ~"), ElementsAre("a|b$c", ";", "*", "?", "#", "~"));
}

TEST(ShellWordsTest, RefusesWhatOnlyAShellCouldDo) {
  for (const char* text : {"a | b", "a > b", "a; b", "a $b", "a \"$b\"", "a `b`", "a & b", "(a)"}) {
    const auto words = split_shell_words(text);
    ASSERT_FALSE(words.ok()) << text;
    EXPECT_THAT(words.error().message(), HasSubstr("would need a shell")) << text;
  }
}

TEST(ShellWordsTest, RefusesQuotesThatDoNotEnd) {
  EXPECT_EQ(split_shell_words("a 'b").error().message(), "a quote (') does not end");
  EXPECT_EQ(split_shell_words("a \"b\\\"").error().message(), "a quote (\") does not end");
  EXPECT_EQ(split_shell_words("a \\").error().message(), "a backslash ends the command");
}

}  // namespace
}  // namespace coimg
