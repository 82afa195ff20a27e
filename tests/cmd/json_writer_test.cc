#include "cmd/json_writer.h"

#include <gtest/gtest.h>

#include <string>

namespace coimg {
namespace {

TEST(JsonQuoteTest, EscapesWhatJsonWantsEscaped) {
  EXPECT_EQ(quote_json("a/b"), R"("a/b")");
  EXPECT_EQ(quote_json("\"\\"), R"("\"\\")");
  EXPECT_EQ(quote_json("\b\f\n\r\t"), R"("\b\f\n\r\t")");
  EXPECT_EQ(quote_json(std::string("\0\x1f\x7f", 3)), R"("\u0000\u001F\u007F")");
}

TEST(JsonQuoteTest, WritesOtherCharactersAsAscii) {
  EXPECT_EQ(quote_json("\u00e9"), R"("\u00E9")");
  EXPECT_EQ(quote_json("\u20ac"), R"("\u20AC")");
  EXPECT_EQ(quote_json("\U0001f600"), R"("\uD83D\uDE00")");
}

TEST(JsonQuoteTest, ReplacesWhatIsNotUtf8) {
  EXPECT_EQ(quote_json("a\xff"
                       "b"),
            R"("a\uFFFDb")");
  EXPECT_EQ(quote_json("\xc3"), R"("\uFFFD")") << "cut off";
  EXPECT_EQ(quote_json("\xc0\x80"), R"("\uFFFD\uFFFD")") << "longer than needed";
  EXPECT_EQ(quote_json("\xed\xa0\x80"), R"("\uFFFD\uFFFD\uFFFD")") << "a surrogate";
  EXPECT_EQ(quote_json("\xf4\x90\x80\x80"), R"("\uFFFD\uFFFD\uFFFD\uFFFD")") << "beyond Unicode";
}

TEST(JsonWriterTest, KeepsTheOrderOfMembersAndIndentsByFour) {
  JsonValue inner = JsonValue::object();
  inner.add("z", true);
  JsonValue list = JsonValue::array();
  list.append(int64_t{-1});
  list.append(std::move(inner));
  JsonValue root = JsonValue::object();
  root.add("b", "text");
  root.add("a", std::move(list));
  root.add("big", UINT64_MAX);
  EXPECT_EQ(root.render(),
            "{\n"
            "    \"b\": \"text\",\n"
            "    \"a\": [\n"
            "        -1,\n"
            "        {\n"
            "            \"z\": true\n"
            "        }\n"
            "    ],\n"
            "    \"big\": 18446744073709551615\n"
            "}\n");
}

TEST(JsonWriterTest, EmptyListsTakeTwoLines) { EXPECT_EQ(JsonValue::array().render(), "[\n]\n"); }

TEST(JsonWriterTest, WritesOneLineToo) {
  JsonValue list = JsonValue::array();
  list.append(1.0);
  list.append(2.345);
  JsonValue root = JsonValue::object();
  root.add("a", "x\ny");
  root.add("b", std::move(list));
  EXPECT_EQ(root.render_line(), "{\"a\": \"x\\ny\", \"b\": [1.00, 2.35]}\n");
}

}  // namespace
}  // namespace coimg
