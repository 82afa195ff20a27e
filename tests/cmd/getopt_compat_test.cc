#include "cmd/getopt_compat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace coimg {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Stop = GetoptResult::Stop;
using Words = std::vector<std::string>;

const std::vector<GetoptOption> kOptions = {
    {.short_letters = "f", .long_names = {"format"}, .takes_value = true},
    {.short_letters = "q", .long_names = {"quiet"}},
    {.short_letters = "", .long_names = {"output"}, .takes_value = true},
    {.short_letters = "", .long_names = {"object"}, .takes_value = true},
    {.short_letters = "", .long_names = {"backing-chain"}},
    {.short_letters = "S", .long_names = {}, .takes_value = true},
    {.short_letters = "h", .long_names = {"help"}, .takes_value = false, .ends_parsing = true},
};

GetoptResult split(const Words& words, OperandOrder order = OperandOrder::kAnywhere) {
  return parse_like_getopt(kOptions, words, order);
}

TEST(GetoptTest, OptionsMayFollowOperands) {
  const GetoptResult result = split({"a", "-q", "b", "--output=json", "c"});
  EXPECT_THAT(result.words, ElementsAre("--quiet", "--output", "json"));
  EXPECT_THAT(result.operands, ElementsAre("a", "b", "c"));
  EXPECT_EQ(result.stop, Stop::kEnd);
}

TEST(GetoptTest, PosixlyCorrectStopsAtTheFirstOperand) {
  setenv("POSIXLY_CORRECT", "1", 1);
  const GetoptResult result = split({"-q", "a", "-q"});
  unsetenv("POSIXLY_CORRECT");
  EXPECT_THAT(result.words, ElementsAre("--quiet"));
  EXPECT_THAT(result.operands, ElementsAre("a", "-q"));
}

TEST(GetoptTest, TheFirstOperandCanEndTheOptions) {
  const GetoptResult result = split({"-q", "info", "--unknown"}, OperandOrder::kStopAtFirst);
  EXPECT_THAT(result.operands, ElementsAre("info", "--unknown"));
  EXPECT_EQ(result.stop, Stop::kEnd);
}

TEST(GetoptTest, GroupsOfLettersMayEndWithAnAttachedValue) {
  EXPECT_THAT(split({"-qfqcow2"}).words, ElementsAre("--quiet", "--format", "qcow2"));
  EXPECT_THAT(split({"-qf", "qcow2"}).words, ElementsAre("--quiet", "--format", "qcow2"));
  EXPECT_THAT(split({"-f=qcow2"}).words, ElementsAre("--format", "=qcow2"));
  EXPECT_THAT(split({"-S4k"}).words, ElementsAre("-S", "4k")) << "no long name";
}

TEST(GetoptTest, LongOptionsMayBeCutToAUniquePrefix) {
  EXPECT_THAT(split({"--out=json"}).words, ElementsAre("--output", "json"));
  EXPECT_THAT(split({"--out", "json"}).words, ElementsAre("--output", "json"));
  EXPECT_THAT(split({"--back"}).words, ElementsAre("--backing-chain"));
}

TEST(GetoptTest, AnAmbiguousPrefixIsUnrecognized) {
  const GetoptResult result = split({"-q", "--o=json", "-q"});
  EXPECT_EQ(result.stop, Stop::kUnrecognized);
  EXPECT_EQ(result.bad_word, "--o=json");
  EXPECT_THAT(result.words, ElementsAre("--quiet")) << "what came before is kept";
}

TEST(GetoptTest, AnExactNameIsNotAmbiguous) {
  const std::vector<GetoptOption> options = {{.short_letters = "", .long_names = {"bitmaps-all"}},
                                             {.short_letters = "", .long_names = {"bitmaps"}}};
  EXPECT_THAT(parse_like_getopt(options, Words{"--bitmaps"}, OperandOrder::kAnywhere).words, ElementsAre("--bitmaps"));
}

TEST(GetoptTest, AFlagTakesNoValue) {
  const GetoptResult result = split({"--backing-chain=x"});
  EXPECT_EQ(result.stop, Stop::kUnrecognized);
  EXPECT_EQ(result.bad_word, "--backing-chain=x");
}

TEST(GetoptTest, UnknownLettersNameTheWholeWord) {
  const GetoptResult result = split({"a", "-qx", "b"});
  EXPECT_EQ(result.stop, Stop::kUnrecognized);
  EXPECT_EQ(result.bad_word, "-qx");
}

TEST(GetoptTest, AMissingValueNamesTheWholeWord) {
  EXPECT_EQ(split({"--output"}).stop, Stop::kMissingValue);
  EXPECT_EQ(split({"--out"}).bad_word, "--out");
  EXPECT_EQ(split({"-qf"}).bad_word, "-qf");
}

TEST(GetoptTest, ValuesMayLookLikeOptions) {
  EXPECT_THAT(split({"-f", "-q"}).words, ElementsAre("--format", "-q"));
  EXPECT_THAT(split({"--output", "--"}).words, ElementsAre("--output", "--"));
  EXPECT_THAT(split({"--output="}).words, ElementsAre("--output", ""));
}

TEST(GetoptTest, TwoDashesEndTheOptionsAndOneIsAnOperand) {
  const GetoptResult result = split({"-", "--", "-q", "--"});
  EXPECT_THAT(result.words, IsEmpty());
  EXPECT_THAT(result.operands, ElementsAre("-", "-q", "--"));
}

TEST(GetoptTest, HelpEndsTheParsing) {
  const GetoptResult result = split({"-qh", "--unknown"});
  EXPECT_EQ(result.stop, Stop::kEarly);
  EXPECT_THAT(result.words, ElementsAre("--quiet", "--help"));
}

}  // namespace
}  // namespace coimg
