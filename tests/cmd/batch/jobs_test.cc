#include "cmd/batch/jobs.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace coimg {
namespace {

using ::testing::ElementsAre;

Result<std::vector<BatchJob>> parse(std::string_view text) {
  return parse_batch_jobs(text, [](std::string_view name) { return name == "info" || name == "batch"; });
}

std::string complaint(std::string_view text) {
  const auto jobs = parse(text);
  return jobs.ok() ? "no error" : jobs.error().message();
}

TEST(BatchJobsTest, AreReadWithAllTheirMembers) {
  const auto jobs = parse(
      "\n"
      R"({"id": "a", "command": ["info", "x y"], "retries": 2, "timeout": 0.5, "outputs": ["o"]})"
      "\n \t\r\n"
      R"({"id": "b", "command": "info 'x y'", "after": ["a", "a"]})");
  ASSERT_TRUE(jobs.ok()) << jobs.error().message();
  ASSERT_EQ(jobs->size(), 2U);
  const BatchJob& a = jobs->at(0);
  const BatchJob& b = jobs->at(1);
  EXPECT_EQ(a.line, 2U);
  EXPECT_THAT(a.command, ElementsAre("info", "x y"));
  EXPECT_EQ(a.retries, 2U);
  EXPECT_EQ(a.timeout_ns, 500'000'000);
  EXPECT_THAT(a.outputs, ElementsAre("o"));
  EXPECT_THAT(a.before, ElementsAre(1));
  EXPECT_EQ(b.line, 4U);
  EXPECT_THAT(b.command, ElementsAre("info", "x y"));
  EXPECT_FALSE(b.retries.has_value());
  EXPECT_THAT(b.after, ElementsAre(0)) << "named twice, waited for once";
}

TEST(BatchJobsTest, MistakesAreNamedWithTheirLine) {
  EXPECT_EQ(complaint("\n{"), "line 2: this is no JSON");
  EXPECT_EQ(complaint("{\"id\": \"a\", \"command\": \"info\"}\n[]"), "line 2: a job has to be an object");
  EXPECT_EQ(complaint(R"({"command": "info"})"), "line 1: the job has no 'id'");
  EXPECT_EQ(complaint(R"({"id": "a\n", "command": "info"})"), "line 1: 'id' has a control character");
  EXPECT_EQ(complaint(R"({"id": "a"})"), "line 1: job 'a' has no 'command'");
  EXPECT_EQ(complaint(R"({"id": "a", "command": []})"), "line 1: job 'a' has no 'command'");
  EXPECT_EQ(complaint(R"({"id": "a", "command": "fly"})"), "line 1: command not found: fly");
  EXPECT_EQ(complaint(R"({"id": "a", "command": "batch x"})"), "line 1: a batch cannot be a job");
  EXPECT_EQ(complaint(R"({"id": "a", "command": "info | x"})"), "line 1: '|' would need a shell; quote it");
  EXPECT_EQ(complaint(R"({"id": "a", "command": ["info", 1]})"), "line 1: 'command' has to be a string");
  EXPECT_EQ(complaint(R"({"id": "a", "command": ["info", "\u0000"]})"), "line 1: 'command' has a NUL character");
  EXPECT_EQ(complaint(R"({"id": "a", "command": "info", "depends": []})"), "line 1: a job has no member 'depends'");
  EXPECT_EQ(complaint(R"({"id": "a", "command": "info", "after": "b"})"),
            "line 1: 'after' has to be a list of strings");
  for (const char* bad : {"-1", "1001", "1.5", "\"x\"", "\"1x\"", "null"}) {
    EXPECT_EQ(complaint(fmt::format(R"({{"id": "a", "command": "info", "retries": {}}})", bad)),
              "line 1: 'retries' has to be a number from 0 to 1000");
  }
  for (const char* bad : {"-1", "0", "1e300", "\"nan\"", "[]"}) {
    EXPECT_EQ(complaint(fmt::format(R"({{"id": "a", "command": "info", "timeout": {}}})", bad)),
              "line 1: 'timeout' has to be a number of seconds greater than 0");
  }
}

TEST(BatchJobsTest, AreReadFromYaml) {
  const auto jobs = parse(
      "# nightly\n"
      "- id: a\n"
      "  command: &look info 'x y'  # one string\n"
      "  retries: 2\n"
      "  timeout: 0.5\n"
      "- id: 7\n"
      "  command: [info, 1024, \"a b\"]\n"
      "  after:\n"
      "    - a\n"
      "- {id: c, command: *look}\n");
  ASSERT_TRUE(jobs.ok()) << jobs.error().message();
  ASSERT_EQ(jobs->size(), 3U);
  EXPECT_EQ(jobs->at(0).line, 2U);
  EXPECT_THAT(jobs->at(0).command, ElementsAre("info", "x y"));
  EXPECT_EQ(jobs->at(0).retries, 2U);
  EXPECT_EQ(jobs->at(0).timeout_ns, 500'000'000);
  EXPECT_EQ(jobs->at(1).line, 6U);
  EXPECT_EQ(jobs->at(1).id, "7");
  EXPECT_THAT(jobs->at(1).command, ElementsAre("info", "1024", "a b"));
  EXPECT_THAT(jobs->at(1).after, ElementsAre(0));
  EXPECT_THAT(jobs->at(2).command, ElementsAre("info", "x y"));
}

TEST(BatchJobsTest, MistakesInYamlAreNamedWithTheirLine) {
  EXPECT_EQ(complaint("- id: a\n  command: [info\n"), "line 3: this is no YAML: did not find expected ',' or ']'");
  EXPECT_EQ(complaint("fly"), "line 1: this is neither a JSON object a line nor a list of jobs in YAML");
  EXPECT_EQ(complaint("---\njobs: []\n"), "line 2: this is neither a JSON object a line nor a list of jobs in YAML");
  EXPECT_EQ(complaint("- info\n"), "line 1: a job has to be an object");
  EXPECT_EQ(complaint("- id: a\n  id: b\n"), "line 2: 'id' is given twice");
  EXPECT_EQ(complaint("- [a]: b\n"), "line 1: a key has to be a word");
  EXPECT_EQ(complaint("- id: *a\n"), "line 1: no anchor 'a'");
  EXPECT_EQ(complaint("- &a [*a]\n"), "line 1: no anchor 'a'");
  EXPECT_EQ(complaint("- id: a\n  command: fly\n"), "line 1: command not found: fly");
  EXPECT_EQ(complaint("[]\n---\n[]\n"), "line 2: there is more than one document");
  EXPECT_EQ(complaint("- " + std::string(20, '[') + std::string(20, ']') + "\n"),
            "line 1: lists and objects are nested too deeply");
  EXPECT_EQ(complaint("- &a [x]\n- &b [[*a]]\n- &c [[*b]]\n- [[[[*c]]]]\n"),
            "line 4: lists and objects are nested too deeply");
}

TEST(BatchJobsTest, AliasesDoNotMakeAShortTextEndless) {
  std::string text = "- &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 7; ++i) {
    text += fmt::format("- &a{} [", i);
    for (int copy = 0; copy < 30; ++copy) text += fmt::format("*a{}, ", i - 1);
    text += "]\n";
  }
  EXPECT_THAT(complaint(text), ::testing::EndsWith("there are more than 2000000 values"));
}

TEST(BatchJobsTest, IdsAreGivenOnceAndKnown) {
  const std::string a = R"({"id": "a", "command": "info"})";
  EXPECT_EQ(complaint(a + "\n\n" + a), "line 3: line 1 has a job 'a' already");
  EXPECT_EQ(complaint(a + "\n" + R"({"id": "b", "command": "info", "after": ["c"]})"),
            "line 2: job 'b' waits for 'c', which there is not");
}

std::string chain(size_t length, const std::string& first_after) {
  std::string text = fmt::format("{{\"id\": \"0\", \"command\": \"info\", \"after\": [{}]}}\n", first_after);
  for (size_t i = 1; i < length; ++i) {
    text += fmt::format("{{\"id\": \"{}\", \"command\": \"info\", \"after\": [\"{}\"]}}\n", i, i - 1);
  }
  return text;
}

TEST(BatchJobsTest, CyclesAreRefused) {
  EXPECT_EQ(complaint(chain(1, "\"0\"")), "line 1: job '0' waits for itself: 0 after 0");
  EXPECT_EQ(complaint(R"({"id": "x", "command": "info", "after": ["1"]})" + std::string("\n") + chain(3, "\"2\"")),
            "line 3: job '1' waits for itself: 1 after 0 after 2 after 1");
  EXPECT_EQ(
      complaint(chain(50'000, "\"49999\"")),
      "line 1: job '0' waits for itself: 0 after 49999 after 49998 after 49997 after 49996 after 49995 after 49994 "
      "after 49993 after 49992 after 49991 after ... after 0");
}

TEST(BatchJobsTest, AreOrderedAsInTheFileWhereTheyMay) {
  const auto jobs = parse(R"({"id": "c", "command": "info", "after": ["b"]})"
                          "\n"
                          R"({"id": "d", "command": "info"})"
                          "\n"
                          R"({"id": "b", "command": "info"})");
  EXPECT_THAT(order_batch_jobs(*jobs), ElementsAre(1, 2, 0));
  EXPECT_EQ(order_batch_jobs(*parse(chain(50'000, ""))).size(), 50'000U);
}

}  // namespace
}  // namespace coimg
