// Tests block/options.cc and options_json.cc. What is accepted and said was compared with qemu-img 7.2.
#include "block/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "block/open.h"
#include "block/warnings.h"

namespace coimg {
namespace {

using ::testing::HasSubstr;

/// The size, or -1 for bad syntax and -2 for a bad range.
__int128 parsed(std::string_view text, uint64_t max = UINT64_MAX) {
  const auto size = parse_size(text, max);
  if (size) return *size;
  return size.error() == SizeParseError::kSyntax ? -1 : -2;
}

#define EXPECT_SIZE(text, expected) EXPECT_TRUE(parsed(text) == (expected)) << '"' << (text) << '"'

TEST(ParseSize, TakesNumbersWithSuffixesOfEitherCase) {
  EXPECT_SIZE("0", 0);
  EXPECT_SIZE("010", 10);
  EXPECT_SIZE("1b", 1);
  EXPECT_SIZE("1k", 1024);
  EXPECT_SIZE("1M", 1 << 20);
  EXPECT_SIZE("2G", uint64_t{2} << 30);
  EXPECT_SIZE("3t", uint64_t{3} << 40);
  EXPECT_SIZE("1P", uint64_t{1} << 50);
  EXPECT_SIZE("15E", uint64_t{15} << 60);
  EXPECT_SIZE(" \t+1k", 1024);
  EXPECT_SIZE("0x10", 16);
  EXPECT_SIZE("0x1b", 27);
  EXPECT_SIZE("0x1bk", 27 * 1024);
}

TEST(ParseSize, ScalesFractionsExactlyAndRoundsHalfUp) {
  EXPECT_SIZE("1.5K", 1536);
  EXPECT_SIZE("1.k", 1024);
  EXPECT_SIZE("1.0", 1);
  EXPECT_SIZE("1.0b", 1);
  EXPECT_SIZE("0.00048828125k", 1);              // half a byte
  EXPECT_SIZE("0.00048828124999999999999k", 0);  // just less
  EXPECT_SIZE("0.1k", 102);
  EXPECT_SIZE("1.9999999999999999999999999e", uint64_t{2} << 60);
  EXPECT_SIZE("0.3333333333333333333333333E", 384307168202282325);
}

TEST(ParseSize, RefusesWhatIsNoSize) {
  for (const char* text : {"",
                           " ",
                           "-1",
                           ".5k",
                           "1.5",
                           "1.5b",
                           "1e5",
                           "1kB",
                           "1KiB",
                           "1MB",
                           "1x",
                           "0x",
                           "0x1.8k",
                           "+ 1k",
                           "1 k",
                           "1,5k",
                           "0x+5",
                           "++1",
                           "99999999999999999999x",
                           "k"}) {
    EXPECT_SIZE(text, -1);
  }
}

TEST(ParseSize, RefusesWhatIsTooLarge) {
  for (const char* text : {"16E", "18446744073709551616", "15.9999999999999999999999E", "0x10000000000000000"}) {
    EXPECT_SIZE(text, -2);
  }
  EXPECT_SIZE("18446744073709551615", UINT64_MAX);
  EXPECT_TRUE(parsed("8E", INT64_MAX) == -2);
  EXPECT_TRUE(parsed("9223372036854775807", INT64_MAX) == INT64_MAX);
}

TEST(Options, ValuesConvertWhatTextAndJsonGive) {
  Options options;
  options.set("a", std::string("yes"));
  options.set("b", false);
  options.set("c", std::string("maybe"));
  options.set("d", int64_t{65536});
  options.set("e", std::string("64k"));
  options.set("f", std::string("x"));
  options.set("g", true);
  EXPECT_EQ(options.take_bool("a").value(), true);
  EXPECT_EQ(options.take_bool("b").value(), false);
  EXPECT_EQ(options.take_bool("c").error().message(), "Parameter 'c' expects 'on' or 'off'");
  EXPECT_EQ(options.take_size("d").value(), 65536);
  EXPECT_EQ(options.take_size("e").value(), 65536);
  const auto bad = options.take_size("f");
  EXPECT_EQ(bad.error().message(), "Parameter 'f' expects a non-negative number below 2^64");
  EXPECT_THAT(bad.error().hint(), HasSubstr("\nand exabytes, respectively.\n"));
  EXPECT_EQ(options.take_text("g"), "on");
  EXPECT_EQ(options.take_text("none"), std::nullopt);
  EXPECT_EQ(options.take_bool("none").value(), std::nullopt);
  EXPECT_TRUE(options.empty()) << "taking removes, also what is wrong";
}

TEST(Options, ChildrenAreTakenWithTheirOwnNamesOnly) {
  Options options;
  for (const char* key : {"file", "file-size", "file.filename", "file.file.driver", "filex"}) {
    options.set(key, std::string(key));
  }
  Options child = options.take_child("file");
  EXPECT_EQ(child.values().size(), 3U);
  EXPECT_TRUE(child.has("") && child.has("filename") && child.has("file.driver"));
  EXPECT_EQ(options.values().size(), 2U);
  EXPECT_TRUE(options.has("file-size") && options.has("filex"));
}

std::string warnings;
class KeyValueOptions : public ::testing::Test {
 protected:
  KeyValueOptions() {
    warnings.clear();
    set_warning_sink([](std::string_view, const std::string& lines) { warnings += lines; });
  }
  ~KeyValueOptions() override { set_warning_sink(nullptr); }
};

TEST_F(KeyValueOptions, DoubledCommasBelongToTheValue) {
  auto options = parse_key_value_options("driver=raw,file.filename=a,,b=c,offset=1,offset=2").value();
  EXPECT_EQ(options.take_text("file.filename"), "a,b=c");
  EXPECT_EQ(options.take_text("offset"), "2") << "the last one counts";
  EXPECT_EQ(options.take_text("driver"), "raw");
  EXPECT_TRUE(options.empty());
  EXPECT_EQ(parse_key_value_options("driver=raw,,").value().take_text("driver"), "raw,");
  EXPECT_TRUE(parse_key_value_options("").value().empty());
}

TEST_F(KeyValueOptions, ABareWordIsTheFileInFrontAndASwitchElsewhere) {
  auto options = parse_key_value_options("a.qcow2,read-only,noforce-share").value();
  EXPECT_EQ(options.take_text("file"), "a.qcow2");
  EXPECT_EQ(options.take_text("read-only"), "on");
  EXPECT_EQ(options.take_text("force-share"), "off");
  EXPECT_THAT(warnings, HasSubstr("warning: short-form boolean option 'read-only' deprecated\n"
                                  "Please use read-only=on instead\n"));
  EXPECT_THAT(warnings, HasSubstr("option 'noforce-share' deprecated\nPlease use force-share=off instead\n"));
}

TEST(JsonOptions, ObjectsAreFlattenedAndScalarsKeepTheirType) {
  const Options options = parse_json_options(R"({"driver":"raw","offset":512,"read-only":true,"backing":null,
      "file":{"driver":"file","deep":{"x":[1,{"y":"z"}]}},"huge":18446744073709551615,"minus":-5})")
                              .value();
  const auto& values = options.values();
  EXPECT_EQ(values.at("driver"), OptionValue(std::string("raw")));
  EXPECT_EQ(values.at("offset"), OptionValue(int64_t{512}));
  EXPECT_EQ(values.at("read-only"), OptionValue(true));
  EXPECT_EQ(values.at("backing"), OptionValue(nullptr));
  EXPECT_EQ(values.at("file.driver"), OptionValue(std::string("file")));
  EXPECT_EQ(values.at("file.deep.x.0"), OptionValue(int64_t{1}));
  EXPECT_EQ(values.at("file.deep.x.1.y"), OptionValue(std::string("z")));
  EXPECT_EQ(values.at("huge"), OptionValue(std::string("18446744073709551615")));
  EXPECT_EQ(values.at("minus"), OptionValue(int64_t{-5}));
  EXPECT_EQ(values.size(), 9U);
}

TEST(JsonOptions, MistakesAreNamed) {
  const auto message = [](std::string_view json) { return parse_json_options(json).error().message(); };
  EXPECT_EQ(message("{oops"), "Could not parse the JSON options: JSON parse error, invalid keyword 'oops'");
  EXPECT_EQ(message("[1]"), "Invalid JSON object given");
  EXPECT_EQ(message("5"), "Invalid JSON object given");
  EXPECT_EQ(message(" "), "Could not parse the JSON options: Expecting a JSON value");
  EXPECT_EQ(message(R"({"a":1,"a":2})"), "Could not parse the JSON options: JSON parse error, duplicate key");
  EXPECT_THAT(message("{\"a\":"), HasSubstr("JSON parse error, "));
  EXPECT_THAT(message("{"), HasSubstr("JSON parse error, "));
  EXPECT_THAT(message("{\"a\":1} x"), HasSubstr("JSON parse error, "));
  EXPECT_TRUE(parse_json_options("{}").value().empty());
}

TEST(JsonOptions, DeepNestingIsRefusedAndCostsNoStack) {
  std::string deep;
  for (int i = 0; i < 1'000'000; ++i) deep += "{\"a\":";
  EXPECT_THAT(parse_json_options(deep).error().message(), HasSubstr("nested too deep"));
  EXPECT_FALSE(parse_json_options(std::string(1'000'000, '[')).ok());
}

class CreateOptionsTest : public ::testing::Test {
 protected:
  CreateOptions options_{{{"cluster_size", OptionType::kSize, "", "65536"},
                          {"compat", OptionType::kText, ""},
                          {"size", OptionType::kSize, ""},
                          {"backing_file", OptionType::kText, ""},
                          {"lazy_refcounts", OptionType::kBool, "", "off"},
                          {"refcount_bits", OptionType::kNumber, "", "16"},
                          {"nocow", OptionType::kBool, ""}}};
  std::string message(std::string_view list) { return options_.parse(list).error().message(); }
};

TEST_F(CreateOptionsTest, ListsAreDescribedInTheOrderOfTheFormat) {
  EXPECT_EQ(options_.describe(), "cluster_size=65536 lazy_refcounts=off refcount_bits=16");
  ASSERT_TRUE(options_.parse("size=1.5k,backing_file=b,,ase,nocow,lazy_refcounts=yes,refcount_bits=0x20").ok());
  ASSERT_TRUE(options_.parse("cluster_size=4k,size=2M").ok());
  EXPECT_EQ(options_.describe(),
            "cluster_size=4096 size=2097152 backing_file=b,,ase lazy_refcounts=yes refcount_bits=32 nocow=on");
  EXPECT_EQ(options_.text("backing_file"), "b,ase");
  EXPECT_EQ(options_.number("size"), 2U << 20);
  EXPECT_TRUE(options_.boolean("lazy_refcounts"));
  ASSERT_TRUE(options_.parse("nolazy_refcounts,nonocow").ok());
  EXPECT_FALSE(options_.boolean("lazy_refcounts"));
  EXPECT_FALSE(options_.boolean("nocow"));
  options_.unset("size");
  EXPECT_FALSE(options_.given("size"));
  EXPECT_EQ(options_.number("size"), std::nullopt);
}

TEST_F(CreateOptionsTest, MistakesAreNamedAsQemuImgDoes) {
  EXPECT_EQ(message("bogus=1"), "Invalid parameter 'bogus'");
  EXPECT_EQ(message("nobogus"), "Invalid parameter 'bogus'");
  EXPECT_EQ(message("backing_file=b,ase.qcow2"), "Invalid parameter 'ase.qcow2'");
  EXPECT_EQ(message("=1M"), "Invalid parameter ''");
  EXPECT_EQ(message("lazy_refcounts=maybe"), "Parameter 'lazy_refcounts' expects 'on' or 'off'");
  EXPECT_EQ(message("cluster_size"), "Parameter 'cluster_size' expects a non-negative number below 2^64");
  EXPECT_EQ(message("size=16E"), "Value '16E' is out of range for parameter 'size'");
  EXPECT_EQ(message("refcount_bits=x"), "Parameter 'refcount_bits' expects a number");
  EXPECT_EQ(message("refcount_bits=99999999999999999999"),
            "Value '99999999999999999999' is too large for parameter 'refcount_bits'");
  for (const char* list : {"", ",", ",size=1M", "size=1M,", "size=1M,,,"}) {
    EXPECT_EQ(message(list), std::string("Invalid option list: ") + list);
  }
}

}  // namespace
}  // namespace coimg
