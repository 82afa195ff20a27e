#include "block/protocol/new_files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <set>

#include "coroutine/main_loop.h"

namespace coimg {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;

/// All of it holds with files that have no name and with those that have a temporary one.
class NewFilesTest : public ::testing::TestWithParam<NewFiles::Naming> {
 protected:
  NewFilesTest() {
    char name[] = "/tmp/new_files_test.XXXXXX";
    directory_ = mkdtemp(name);
    fs::current_path(directory_);
  }
  ~NewFilesTest() override {
    fs::current_path("/");
    fs::remove_all(directory_);
  }

  static void write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  static std::string content(const std::string& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static std::set<std::string> names() {
    std::set<std::string> found;
    for (const auto& entry : fs::directory_iterator(".")) found.insert(entry.path().filename());
    return found;
  }
  static struct stat status(const std::string& path) {
    struct stat info{};
    EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
    return info;
  }

  /// Begins a file with its own path in it.
  void make(const std::string& path) {
    auto fd = files_.begin(path);
    ASSERT_TRUE(fd.ok()) << fd.error().message();
    ASSERT_EQ(::write(*fd, path.data(), path.size()), static_cast<ssize_t>(path.size()));
  }
  Result<void> publish(bool durable = true) {
    std::optional<Result<void>> result;
    run_in_main_loop([&]() coroutine_fn { result = files_.publish(durable); });
    return *std::move(result);
  }

  std::string directory_;
  NewFiles files_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(, NewFilesTest,
                         ::testing::Values(NewFiles::Naming::kWhenComplete, NewFiles::Naming::kTemporary),
                         [](const auto& parameter) {
                           return parameter.param == NewFiles::Naming::kTemporary ? "Temporary" : "WhenComplete";
                         });

TEST_P(NewFilesTest, AFileHasItsNameWhenItIsPublished) {
  make("a");
  EXPECT_FALSE(fs::exists("a"));
  EXPECT_EQ(names().size(), GetParam() == NewFiles::Naming::kTemporary ? 1U : 0U);
  ASSERT_TRUE(publish().ok());
  EXPECT_EQ(content("a"), "a");
  EXPECT_THAT(names(), ElementsAre("a"));
}

TEST_P(NewFilesTest, WhatIsDiscardedWasNeverThere) {
  write("old", "content");
  make("a");
  make("old");
  files_.discard();
  EXPECT_THAT(names(), ElementsAre("old"));
  EXPECT_EQ(content("old"), "content");
}

TEST_P(NewFilesTest, TheNextFileTakesThePlaceForTheSamePeople) {
  write("old", "content");
  chmod("old", 0640);
  const bool attributes = setxattr("old", "user.label", "value", 5, 0) == 0;
  if (geteuid() == 0) {
    EXPECT_EQ(chown("old", 12, 34), 0);
  }
  const auto before = status("old");
  make("old");
  EXPECT_EQ(content("old"), "content");
  ASSERT_TRUE(publish(/*durable=*/false).ok());
  const auto after = status("old");
  EXPECT_EQ(content("old"), "old");
  EXPECT_NE(after.st_ino, before.st_ino);
  EXPECT_EQ(after.st_mode, before.st_mode);
  EXPECT_EQ(after.st_uid, before.st_uid);
  EXPECT_EQ(after.st_gid, before.st_gid);
  char value[16];
  if (attributes) {
    EXPECT_EQ(getxattr("old", "user.label", value, sizeof(value)), 5);
  }
  EXPECT_THAT(names(), ElementsAre("old"));
}

TEST_P(NewFilesTest, NewFilesHaveTheModeThatTheUmaskLeaves) {
  const mode_t before = umask(027);
  make("a");
  umask(before);
  ASSERT_TRUE(publish().ok());
  EXPECT_EQ(status("a").st_mode & 07777, 0640U);
}

TEST_P(NewFilesTest, EveryNameThatWillLeadToAFileFindsIt) {
  fs::create_directory("d");
  fs::create_symlink("d", "e");
  fs::create_symlink("../link2", "d/link1");
  fs::create_symlink("d/a", "link2");
  write("old", "content");
  make("d/link1");
  make("old");
  for (const std::string& name : {std::string("d/a"), std::string("./e/../d//a"), directory_ + "/e/link1"}) {
    const auto found = files_.find(name);
    ASSERT_TRUE(found.has_value()) << name;
    EXPECT_EQ(content(*found), "d/link1");
  }
  EXPECT_EQ(content(files_.find("e/../old").value()), "old");
  EXPECT_FALSE(files_.find("d/b").has_value());
  EXPECT_FALSE(files_.find("a").has_value());
  EXPECT_FALSE(files_.find("nowhere/a").has_value());
  ASSERT_TRUE(publish().ok());
  EXPECT_TRUE(fs::is_symlink("d/link1"));
  EXPECT_EQ(content("d/a"), "d/link1");
}

TEST_P(NewFilesTest, WhatOthersPutThereMeanwhileIsLeft) {
  write("old", "content");
  make("data");
  make("old");
  make("image");
  write("data", "theirs");
  const auto result = publish();
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().errnum(), EEXIST);
  EXPECT_EQ(result.error().message(), "Could not create 'data': another file has been put there meanwhile");
  EXPECT_EQ(content("data"), "theirs");
  EXPECT_FALSE(fs::exists("image")) << "it had its place already";
}

TEST_P(NewFilesTest, AReplacedFileIsNotReplacedAgain) {
  write("old", "content");
  make("old");
  write("theirs", "theirs");
  fs::rename("theirs", "old");
  EXPECT_EQ(publish().error().errnum(), EEXIST);
  EXPECT_EQ(content("old"), "theirs");
  EXPECT_THAT(names(), ElementsAre("old"));
}

TEST_P(NewFilesTest, AFileInUseIsRefusedAndOneToBeReplacedKeptFromOthers) {
  write("old", "content");
  const int fd = open("old", O_RDWR | O_CLOEXEC);
  FileLocks locks;
  const Permissions writer{kPermWrite | kPermResize, kPermAll & ~kPermResize};
  ASSERT_TRUE(locks.change(fd, writer, "old").ok());
  EXPECT_EQ(files_.begin("old").error().errnum(), EAGAIN);
  ASSERT_TRUE(locks.change(fd, {0, kPermAll}, "old").ok());
  make("old");
  EXPECT_FALSE(locks.change(fd, writer, "old").ok());
  ASSERT_TRUE(publish().ok());
  EXPECT_TRUE(locks.change(fd, writer, "old").ok()) << "nobody needs it any more";
  close(fd);
}

TEST_P(NewFilesTest, AFileWithOtherNamesIsWrittenInPlaceAndEmptiedWhenItIsNotComplete) {
  write("one", "content");
  fs::create_hard_link("one", "two");
  make("one");
  EXPECT_EQ(content("two"), "one");
  EXPECT_FALSE(files_.find("one").has_value());
  files_.discard();
  EXPECT_EQ(content("two"), "");
  make("one");
  ASSERT_TRUE(publish().ok());
  EXPECT_EQ(content("two"), "one");
}

TEST_P(NewFilesTest, NamesOfOpenFilesAreWrittenInPlace) {
  write("x", "content");
  const int fd = open("x", O_RDWR | O_CLOEXEC);
  const auto before = status("x").st_ino;
  make("/dev/fd/" + std::to_string(fd));
  ASSERT_TRUE(publish().ok());
  EXPECT_EQ(status("x").st_ino, before);
  EXPECT_EQ(content("x"), "/dev/fd/" + std::to_string(fd));
  close(fd);
}

TEST_P(NewFilesTest, LongNamesHaveTemporaryOnesToo) {
  const std::string name(255, 'n');
  write(name, "content");
  make(name);
  ASSERT_TRUE(publish().ok());
  EXPECT_THAT(names(), ElementsAre(name));
}

TEST_P(NewFilesTest, MistakesAreNamed) {
  EXPECT_EQ(files_.begin("no/such").error().message(), "Could not create 'no/such': No such file or directory");
  EXPECT_EQ(files_.begin(".").error().message(), "Could not create '.': Is a directory");
  fs::create_symlink("loop", "loop");
  EXPECT_EQ(files_.begin("loop").error().errnum(), ELOOP);
  ASSERT_EQ(mkfifo("fifo", 0600), 0);
  EXPECT_EQ(files_.begin("fifo").error().message(), "'file' driver requires 'fifo' to be a regular file");
  EXPECT_THAT(names(), ElementsAre("fifo", "loop"));
}

}  // namespace
}  // namespace coimg
