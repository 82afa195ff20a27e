// A command that makes a durable image: when it ends, all of the file is on the disk, and then its name.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/crash/recording.h"
#include "tests/crash/suite.h"

namespace coimg::crash {
namespace {

struct NewFileCase {
  const char* name;
  std::vector<std::string> command;  ///< makes the file "target" of one.raw

  friend std::ostream& operator<<(std::ostream& out, const NewFileCase& one) { return out << one.name; }
};

class NewFileCrash : public testing::TestWithParam<NewFileCase> {};

TEST_P(NewFileCrash, IsDurableBeforeItsName) {
  const TemporaryDirectory directory, log;
  std::vector<std::byte> source(300000);
  for (size_t i = 0; i < source.size(); ++i) source[i] = std::byte(i / 5000 % 3 != 0 ? i * 31 / 7 : 0);
  directory.write("one.raw", source);
  const Outcome outcome = run_recorded(directory.path(), GetParam().command, log.path() + "/log");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;

  const auto logs = read_recording(log.path() + "/log", {});
  ASSERT_EQ(logs.size(), 2U) << "one new file without a name, and the directory";
  const auto& [name, file] = *std::ranges::find_if(logs, [](const auto& entry) { return entry.first != "."; });
  EXPECT_NE(name, "target") << "it was written under its name";
  const auto nothing_more = [](size_t, uint64_t) { return false; };
  EXPECT_EQ(file.bytes_after_crash(file.entries().size(), nothing_more), directory.read("target"))
      << "not all of it was flushed";
  ASSERT_TRUE(logs.contains("."));
  const WriteLog& names = logs.at(".");
  ASSERT_FALSE(names.entries().empty()) << "the directory was not flushed";
  EXPECT_GT(names.entries().back().time, file.entries().back().time) << "the name may be there before the file";
}

INSTANTIATE_TEST_SUITE_P(
    Commands, NewFileCrash,
    testing::Values(
        NewFileCase{"create", {"create", "-q", "-f", "qcow2", "-o", "preallocation=full", "target", "1M"}},
        NewFileCase{"convert", {"convert", "-t", "writeback", "-f", "raw", "-O", "qcow2", "one.raw", "target"}},
        NewFileCase{"convert_to_raw", {"convert", "-t", "none", "-f", "raw", "-O", "raw", "one.raw", "target"}},
        NewFileCase{"dd", {"dd", "-f", "raw", "-O", "qcow2", "if=one.raw", "of=target"}}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace coimg::crash
