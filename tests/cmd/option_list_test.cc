#include "cmd/option_list.h"

#include <gtest/gtest.h>

namespace coimg {
namespace {

TEST(OptionListTest, JoinsLists) {
  OptionList list;
  EXPECT_FALSE(list.given());
  ASSERT_TRUE(list.append("size=1M").ok());
  ASSERT_TRUE(list.append("compat=1.1,backing_file=a,,").ok());
  EXPECT_EQ(list.text(), "size=1M,compat=1.1,backing_file=a,,");
}

TEST(OptionListTest, RefusesListsWithAnEmptyEnd) {
  for (const char* text : {"", ",", ",a=b", "a=b,", "a=b,,,", ",,"}) {
    SCOPED_TRACE(text);
    OptionList list;
    const auto result = list.append(text);
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().message(), std::string("Invalid option list: ") + text);
  }
}

TEST(OptionListTest, FindsTheWishForHelpAnywhere) {
  const auto asks = [](const char* text) {
    OptionList list;
    EXPECT_TRUE(list.append(text).ok());
    return list.asks_for_help();
  };
  EXPECT_TRUE(asks("help"));
  EXPECT_TRUE(asks("?"));
  EXPECT_TRUE(asks("size=1M,help,x"));
  EXPECT_FALSE(asks("size=help"));
  EXPECT_FALSE(asks("helper"));
}

TEST(OptionListTest, HelpIsSortedAndAligned) {
  const std::vector<CreateOptionSpec> specs = {{"size", OptionType::kSize, "Virtual disk size"},
                                               {"lazy_refcounts", OptionType::kBool, "Postpone refcount updates"}};
  EXPECT_EQ(render_option_help("Supported x options:", specs),
            "Supported x options:\n"
            "  lazy_refcounts=<bool (on/off)> - Postpone refcount updates\n"
            "  size=<size>            - Virtual disk size\n");
}

}  // namespace
}  // namespace coimg
