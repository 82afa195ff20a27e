// Tests block/protocol: host files, their holes and their locks. ctest runs all of it on both I/O engines.
#include "block/protocol/host_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>

#include "block/node.h"
#include "block/protocol/file_locks.h"
#include "block/protocol/new_files.h"
#include "block/util/buffer.h"
#include "block/util/math.h"
#include "block/util/scope.h"
#include "block/util/unique_fd.h"
#include "coroutine/co_group.h"
#include "coroutine/main_loop.h"

namespace coimg {
namespace {

using ::testing::HasSubstr;

OpenFlags writable() {
  OpenFlags flags;
  flags.writable = true;
  return flags;
}

bool installed(const char* program) {
  return std::system(("command -v " + std::string(program) + " >/dev/null 2>&1").c_str()) == 0;
}

class HostFileTest : public ::testing::Test {
 protected:
  HostFileTest() {
    char name[] = "/tmp/coimg-file-XXXXXX";
    directory_ = mkdtemp(name);
    path_ = directory_ + "/x";
    std::signal(SIGXFSZ, SIG_IGN);
  }
  ~HostFileTest() override { std::filesystem::remove_all(directory_); }

  void make_file(uint64_t bytes, const std::string& start = "") const {
    const UniqueFd fd(::open(path_.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644));
    ASSERT_EQ(pwrite(fd.get(), start.data(), start.size(), 0), static_cast<ssize_t>(start.size()));
    ASSERT_EQ(ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
  }

  Result<std::unique_ptr<BlockDriver>> open(const std::string& path, OpenFlags flags, Permissions permissions = {},
                                            const char* locking = "auto") const coroutine_fn {
    Options options;
    options.set("locking", std::string(locking));
    return type_->open({.node = nullptr,
                        .file = nullptr,
                        .filename = path,
                        .options = &options,
                        .flags = flags,
                        .permissions = permissions});
  }

  /// Opens path_, gives it to `body` and closes it.
  void with_file(OpenFlags flags, const std::function<void(BlockDriver&)>& body) const {
    run_in_main_loop([&]() coroutine_fn {
      auto file = open(path_, flags);
      ASSERT_TRUE(file.ok()) << file.error().message();
      body(**file);
      EXPECT_TRUE((*file)->close().ok());
    });
  }

  Error open_error(const std::string& path, OpenFlags flags = {}) const {
    Error error(0, "");
    run_in_main_loop([&]() coroutine_fn {
      auto file = open(path, flags);
      if (file.ok()) {
        EXPECT_TRUE((*file)->close().ok());
      } else {
        error = file.error();
      }
    });
    return error;
  }

  static Result<void> write(BlockDriver& file, uint64_t offset, std::string_view text) coroutine_fn {
    return file.pwritev(offset, IoVector(std::as_bytes(std::span(text))), {});
  }
  static std::string read(BlockDriver& file, uint64_t offset, size_t bytes) coroutine_fn {
    std::string text(bytes, '?');
    EXPECT_TRUE(file.preadv(offset, IoVector(std::as_writable_bytes(std::span(text)))).ok());
    return text;
  }
  /// "data 0-4096, hole 4096-8192, ..."
  static std::string layout(BlockDriver& file) coroutine_fn {
    std::string text;
    for (uint64_t offset = 0; offset < file.length();) {
      const auto status = file.block_status(offset, file.length() - offset, true).value();
      EXPECT_GT(status.bytes, 0U);
      EXPECT_TRUE(status.allocated);
      EXPECT_EQ(status.host_offset, offset);
      EXPECT_NE(status.data, status.zero);
      text += (text.empty() ? "" : ", ") + std::string(status.data ? "data " : "hole ") + std::to_string(offset) + "-" +
              std::to_string(offset + status.bytes);
      offset += status.bytes;
    }
    return text;
  }
  static Result<void> zero(BlockDriver& file, uint64_t offset, uint64_t bytes, bool may_unmap) coroutine_fn {
    return file.pwrite_zeroes(offset, bytes, {.may_unmap = may_unmap, .no_fallback = false, .placement = nullptr});
  }
  uint64_t blocks() const {
    struct stat info{};
    stat(path_.c_str(), &info);
    return static_cast<uint64_t>(info.st_blocks) * 512;
  }

  std::unique_ptr<DriverType> type_ = make_file_driver_type();
  std::string directory_, path_;
};

TEST_F(HostFileTest, WhatIsWrittenIsReadAndTheRestIsZeros) {
  make_file(0);
  with_file(writable(), [](BlockDriver& file) coroutine_fn {
    EXPECT_TRUE(write(file, 1000, "hello").ok());
    EXPECT_EQ(file.length(), 1005U);
    EXPECT_EQ(read(file, 998, 9), std::string("\0\0hello\0\0", 9)) << "zeros before it and beyond the end";
    EXPECT_EQ(read(file, 5000, 3), std::string(3, '\0'));
    EXPECT_TRUE(file.flush().ok());
  });
}

TEST_F(HostFileTest, RequestsMayHaveMorePiecesThanOneSystemCallTakes) {
  make_file(0);
  with_file(writable(), [](BlockDriver& file) coroutine_fn {
    std::string text(5000, ' ');
    for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 26);
    IoVector pieces;
    for (char& byte : text) pieces.add(std::as_writable_bytes(std::span(&byte, 1)));
    EXPECT_TRUE(file.pwritev(3, pieces, {}).ok());
    const std::string written = text;
    text.assign(text.size(), '?');
    EXPECT_TRUE(file.preadv(3, pieces).ok());
    EXPECT_EQ(text, written);
  });
}

TEST_F(HostFileTest, WhatIsNoDiskIsRefusedWithoutBlocking) {
  ASSERT_EQ(mkfifo(path_.c_str(), 0644), 0);
  const std::string socket_path = directory_ + "/s";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket_path.c_str(), sizeof(address.sun_path) - 1);
  const UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);

  alarm(20);
  for (const std::string& path : {path_, socket_path, directory_}) {
    for (const OpenFlags& flags : {OpenFlags{}, writable()}) {
      EXPECT_EQ(open_error(path, flags).message(), "'file' driver requires '" + path + "' to be a regular file");
    }
    run_in_main_loop([&]() coroutine_fn {
      NewFiles files;
      EXPECT_FALSE(type_->create_file(path, CreateOptions(type_->create_options()), files).ok());
    });
  }
  alarm(0);
}

TEST_F(HostFileTest, MistakesAreNamed) {
  EXPECT_EQ(open_error(path_).message(), "Could not open '" + path_ + "': No such file or directory");
  EXPECT_EQ(open_error(path_).errnum(), ENOENT);
  EXPECT_EQ(open_error("").message(), "The 'file' block driver requires a file name");
  make_file(512);
  chmod(path_.c_str(), 0444);
  EXPECT_EQ(open_error(path_, writable()).errnum(), geteuid() == 0 ? 0 : EACCES);
}

TEST_F(HostFileTest, DevicesWork) {
  path_ = "/dev/zero";
  with_file({}, [](BlockDriver& file) coroutine_fn {
    EXPECT_EQ(read(file, 0, 4), std::string(4, '\0'));
    EXPECT_EQ(file.truncate(4096, Preallocation::kOff).error().message(), "Cannot grow device files");
    EXPECT_TRUE(file.flush().ok());
  });
  path_ = "/dev/full";
  with_file(writable(),
            [](BlockDriver& file) coroutine_fn { EXPECT_EQ(write(file, 0, "x").error().errnum(), ENOSPC); });
}

TEST_F(HostFileTest, HolesAreFoundAndFollowWhatIsWritten) {
  make_file(1 << 20);
  with_file(writable(), [](BlockDriver& file) coroutine_fn {
    EXPECT_EQ(layout(file), "hole 0-1048576");
    EXPECT_TRUE(write(file, 65536, std::string(4096, 'x')).ok());
    EXPECT_TRUE(file.flush().ok());
    EXPECT_EQ(layout(file), "hole 0-65536, data 65536-69632, hole 69632-1048576");
    EXPECT_TRUE(write(file, 1 << 20, "tail").ok());
    EXPECT_TRUE(file.flush().ok());
    EXPECT_EQ(layout(file), "hole 0-65536, data 65536-69632, hole 69632-1048576, data 1048576-1048580");
    EXPECT_TRUE(zero(file, 65536, 4096, true).ok());
    EXPECT_EQ(layout(file), "hole 0-1048576, data 1048576-1048580");
    EXPECT_TRUE(file.truncate(1 << 19, Preallocation::kOff).ok());
    EXPECT_EQ(layout(file), "hole 0-524288");
    const auto cheap = file.block_status(0, 4096, false).value();
    EXPECT_TRUE(cheap.data && !cheap.zero) << "nobody wanted to know about zeros";
  });
}

TEST_F(HostFileTest, ZeroingWorksInsideAcrossAndBehindTheEnd) {
  for (const bool may_unmap : {false, true}) {
    SCOPED_TRACE(may_unmap);
    make_file(16384, std::string(16384, 'x'));
    with_file(writable(), [&](BlockDriver& file) coroutine_fn {
      EXPECT_TRUE(zero(file, 4096, 4096, may_unmap).ok());
      EXPECT_EQ(file.length(), 16384U);
      EXPECT_TRUE(zero(file, 12288, 8192, may_unmap).ok());
      EXPECT_EQ(file.length(), 20480U);
      EXPECT_TRUE(zero(file, 40960, 4096, may_unmap).ok());
      EXPECT_EQ(file.length(), 45056U);
      std::string expected(45056, '\0');
      for (size_t i = 0; i < 12288; ++i) expected[i] = i >= 4096 && i < 8192 ? '\0' : 'x';
      EXPECT_TRUE(read(file, 0, 45056) == expected);
    });
    EXPECT_EQ(std::filesystem::file_size(path_), 45056U);
    if (may_unmap) {
      EXPECT_LE(blocks(), 12288U) << "space was to be given back";
    } else {
      EXPECT_GE(blocks(), 24576U) << "space was to be kept";
    }
  }
}

TEST_F(HostFileTest, ExtendingDoesNotCutOffWhatOthersWriteBehindIt) {
  make_file(0);
  with_file(writable(), [](BlockDriver& file) coroutine_fn {
    CoGroup group;
    for (uint64_t i = 0; i < 64; ++i) {
      group.start([&file, i]() coroutine_fn {
        const uint64_t offset = (63 - i) * 65536;
        if (i % 2) {
          EXPECT_TRUE(zero(file, offset, 65536, true).ok());
        } else {
          EXPECT_TRUE(write(file, offset, std::string(65536, 'x')).ok());
        }
      });
    }
    group.wait_all();
    EXPECT_EQ(file.length(), 64U * 65536);
    for (uint64_t i = 0; i < 64; i += 2) {
      EXPECT_TRUE(read(file, (63 - i) * 65536, 65536) == std::string(65536, 'x')) << i;
    }
  });
}

TEST_F(HostFileTest, DiscardGivesSpaceBackOnlyWhenAskedTo) {
  make_file(1 << 20, std::string(1 << 20, 'x'));
  with_file(writable(), [](BlockDriver& file) coroutine_fn {
    EXPECT_TRUE(file.flush().ok());
    EXPECT_TRUE(file.pdiscard(0, 1 << 20).ok());
    EXPECT_EQ(read(file, 0, 1), "x");
  });
  OpenFlags flags = writable();
  flags.discard_unmap = true;
  with_file(flags, [](BlockDriver& file) coroutine_fn {
    EXPECT_TRUE(file.pdiscard(0, 2 << 20).ok());
    EXPECT_EQ(file.length(), 1U << 20);
    EXPECT_EQ(file.allocated_file_size().value(), 0U);
    EXPECT_EQ(layout(file), "hole 0-1048576");
  });
}

TEST_F(HostFileTest, TheLastBlockIsFreedEvenIfTheFileEndsInIt) {
  const std::string content(100 * 4096 + 512, 'x');
  OpenFlags flags = writable();
  flags.discard_unmap = true;
  for (const bool discards : {false, true}) {
    make_file(content.size(), content);
    with_file(flags, [&](BlockDriver& file) coroutine_fn {
      const uint64_t offset = 60 * 4096, bytes = content.size() - offset;
      EXPECT_TRUE((discards ? file.pdiscard(offset, bytes) : zero(file, offset, bytes, /*may_unmap=*/true)).ok());
      EXPECT_EQ(file.length(), content.size());
      EXPECT_EQ(file.allocated_file_size().value(), offset);
      EXPECT_EQ(read(file, 0, offset), content.substr(0, offset));
      EXPECT_EQ(read(file, offset, bytes), std::string(bytes, '\0'));
    });
  }
}

TEST_F(HostFileTest, PreallocationReservesOrWrites) {
  make_file(0);
  with_file(writable(), [&](BlockDriver& file) coroutine_fn {
    EXPECT_TRUE(file.truncate(1 << 20, Preallocation::kFalloc).ok());
    EXPECT_GE(file.allocated_file_size().value(), 1U << 20);
    EXPECT_TRUE(file.truncate(3 << 20, Preallocation::kFull).ok());
    EXPECT_GE(file.allocated_file_size().value(), 3U << 20);
    EXPECT_EQ(file.length(), 3U << 20);
    EXPECT_EQ(file.truncate(4 << 20, Preallocation::kMetadata).error().message(),
              "Unsupported preallocation mode: metadata");
    EXPECT_FALSE(file.truncate(1 << 20, Preallocation::kFull).ok());
    EXPECT_EQ(file.length(), 3U << 20);
    EXPECT_EQ(file.truncate(uint64_t{1} << 63, Preallocation::kOff).error().errnum(), EFBIG);
  });
}

TEST_F(HostFileTest, ReservingTakesSpaceAndChangesNothingElse) {
  make_file(8 << 20, "xyz");
  with_file(writable(), [&](BlockDriver& file) coroutine_fn {
    const std::optional<uint64_t> before = file.allocated_file_size().value();
    const ByteRange ranges[] = {{0, 65536}, {4 << 20, 65536}, {16 << 20, 65536}};
    EXPECT_TRUE(file.reserve(ranges).ok());
    EXPECT_GE(file.allocated_file_size().value(), 3 * 65536U);
    EXPECT_LT(before, 65536U);
    EXPECT_EQ(file.length(), 8U << 20);
    EXPECT_EQ(read(file, 0, 4), std::string("xyz\0", 4));
    EXPECT_EQ(read(file, 4 << 20, 65536), std::string(65536, '\0'));
  });
}

/// Lets files grow no further than `bytes` while it lives: the next best thing to a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(uint64_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(HostFileTest, AFullDiskIsReportedAndPreallocationTakesItsPartBack) {
  make_file(4096);
  with_file(writable(), [&](BlockDriver& file) coroutine_fn {
    const FileSizeLimit limit(64 * 1024);
    EXPECT_TRUE(write(file, 60 * 1024, std::string(4096, 'x')).ok());
    const auto beyond = write(file, 60 * 1024, std::string(8192, 'x'));
    EXPECT_EQ(beyond.error().errnum(), EFBIG);
    EXPECT_EQ(file.length(), 64U * 1024) << "what fit was written and counts";
    EXPECT_FALSE(file.truncate(1 << 20, Preallocation::kFull).ok());
    EXPECT_EQ(file.length(), 64U * 1024);
  });
}

TEST_F(HostFileTest, PreallocatingMoreThanADiskHasFailsWithItsReason) {
  if (geteuid() != 0) GTEST_SKIP() << "mounting a small file system needs root";
  const std::string mount = "mount -t tmpfs -o size=1m coimg-test " + directory_ + " 2>/dev/null";
  if (std::system(mount.c_str()) != 0) GTEST_SKIP() << "no file system can be mounted here";
  const auto unmount = on_scope_exit([&] { (void)!std::system(("umount " + directory_).c_str()); });
  make_file(0);
  with_file(writable(), [&](BlockDriver& file) coroutine_fn {
    const auto full = file.truncate(4 << 20, Preallocation::kFull);
    EXPECT_EQ(full.error().message(), "Could not write zeros for preallocation: No space left on device");
    EXPECT_EQ(file.truncate(4 << 20, Preallocation::kFalloc).error().errnum(), ENOSPC);
    const ByteRange range = {0, 4 << 20};
    EXPECT_EQ(file.reserve(std::span(&range, 1)).error().message(), "Could not reserve space: No space left on device");
    EXPECT_EQ(file.length(), 0U);
    EXPECT_EQ(write(file, 0, std::string(2 << 20, 'x')).error().errnum(), ENOSPC);
    // This file system has holes but no way to zero a range and keep its space: that is made of two steps.
    EXPECT_TRUE(file.truncate(65536, Preallocation::kOff).ok());
    EXPECT_TRUE(zero(file, 0, 32768, false).ok());
    EXPECT_EQ(read(file, 0, 4), std::string(4, '\0'));
    EXPECT_GE(file.allocated_file_size().value(), 32768U);
  });
}

TEST_F(HostFileTest, DirectIoStatesItsAlignmentAndReadsTheTail) {
  make_file(4096 + 700, "head");
  OpenFlags flags = writable();
  flags.direct = true;
  if (open_error(path_, flags).errnum() == EINVAL) GTEST_SKIP() << "no O_DIRECT on this file system";
  with_file(flags, [&](BlockDriver& file) coroutine_fn {
    const BlockLimits limits = file.limits();
    ASSERT_TRUE(std::has_single_bit(limits.request_alignment));
    ASSERT_TRUE(std::has_single_bit(limits.memory_alignment));
    AlignedBuffer buffer(16384);
    const auto bytes = buffer.span();
    EXPECT_TRUE(file.preadv(0, IoVector(bytes)).ok());
    EXPECT_EQ(static_cast<char>(bytes[0]), 'h');
    EXPECT_TRUE(is_zero(buffer.span().subspan(4796)));
    std::memset(bytes.data(), 'y', bytes.size());
    EXPECT_TRUE(file.pwritev(4096, IoVector(bytes.first(4096)), {}).ok());
    EXPECT_EQ(file.length(), 8192U);
    EXPECT_TRUE(file.truncate(20000, Preallocation::kFull).ok()) << "at lengths off the alignment too";
    EXPECT_TRUE(file.preadv(16384, IoVector(bytes)).ok());
    EXPECT_TRUE(is_zero(bytes));
  });
}

// --- locks ---------------------------------------------------------------------------------------------------------

constexpr Permissions kWriter{kPermConsistentRead | kPermWrite | kPermResize, kPermAll & ~(kPermWrite | kPermResize)};
constexpr Permissions kReader{kPermConsistentRead, kPermAll & ~(kPermWrite | kPermResize)};

/// A process that holds the locks of `permissions` on a file until it is destroyed.
class OtherProcess {
 public:
  OtherProcess(const std::string& path, const Permissions& permissions) {
    int ready[2];
    EXPECT_EQ(pipe2(ready, O_CLOEXEC), 0);
    child_ = fork();
    if (child_ == 0) {  // single-threaded code only: no loop, no coroutines
      const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
      FileLocks locks;
      const char ok = locks.change(fd, permissions, path).ok() ? 'y' : 'n';
      (void)!::write(ready[1], &ok, 1);
      for (;;) pause();
    }
    close(ready[1]);
    char ok = 'n';
    EXPECT_EQ(::read(ready[0], &ok, 1), 1);
    EXPECT_EQ(ok, 'y');
    close(ready[0]);
  }
  ~OtherProcess() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }

 private:
  pid_t child_;
};

class FileLocksTest : public HostFileTest {
 protected:
  FileLocksTest() { make_file(1 << 20); }

  /// The error of opening path_ under `permissions`; empty when that works.
  std::string conflict(OpenFlags flags, const Permissions& permissions, const char* locking = "auto") const {
    std::string message;
    run_in_main_loop([&]() coroutine_fn {
      auto file = open(path_, flags, permissions, locking);
      if (file.ok()) {
        EXPECT_TRUE((*file)->close().ok());
        return;
      }
      message = file.error().message();
      EXPECT_EQ(file.error().hint(), "Is another process using the image [" + path_ + "]?\n");
    });
    return message;
  }
};

TEST_F(FileLocksTest, AWriterExcludesAllThatLock) {
  const OtherProcess writer(path_, kWriter);
  EXPECT_EQ(conflict({}, kReader), "Failed to get shared \"write\" lock");
  EXPECT_EQ(conflict(writable(), kWriter), "Failed to get \"write\" lock");
  EXPECT_EQ(conflict({}, {kPermConsistentRead, kPermAll}), "") << "a reader that minds nobody";
  EXPECT_EQ(conflict(writable(), kWriter, "off"), "");
  OpenFlags shared;
  shared.force_share = true;
  EXPECT_EQ(conflict(shared, kReader), "");
}

TEST_F(FileLocksTest, ReadersLiveTogetherAndKeepWritersOut) {
  const OtherProcess reader(path_, kReader);
  EXPECT_EQ(conflict({}, kReader), "");
  EXPECT_EQ(conflict(writable(), kWriter), "Failed to get \"write\" lock");
  EXPECT_EQ(conflict(writable(), {kPermResize, kPermAll}), "Failed to get \"resize\" lock");
}

TEST_F(FileLocksTest, LocksEndWithTheFileAndAFailedChangeLeavesTheOldOnes) {
  run_in_main_loop([&]() coroutine_fn {
    auto first = open(path_, writable(), kReader).value();
    auto second = open(path_, writable(), kReader).value();
    EXPECT_FALSE(second->set_permissions(kWriter).ok()) << "two opens of one process exclude each other as well";
    EXPECT_FALSE(open(path_, writable(), kWriter).ok()) << "the second one still is a reader";
    EXPECT_TRUE(first->close().ok());
    EXPECT_TRUE(second->set_permissions(kWriter).ok());
    EXPECT_FALSE(open(path_, {}, kReader).ok());
    EXPECT_TRUE(second->set_permissions({0, kPermAll}).ok());
    auto third = open(path_, writable(), kWriter);
    EXPECT_TRUE(third.ok());
    EXPECT_TRUE((*third)->close().ok());
    EXPECT_TRUE(second->close().ok());
  });
}

TEST_F(FileLocksTest, TheLengthIsReadAgainOnceOthersAreKeptOff) {
  run_in_main_loop([&]() coroutine_fn {
    auto file = open(path_, {}).value();
    EXPECT_EQ(truncate(path_.c_str(), 4096), 0);
    EXPECT_TRUE(file->set_permissions(kReader).ok());
    EXPECT_EQ(file->length(), 4096U);
    EXPECT_TRUE(file->close().ok());
  });
}

TEST_F(FileLocksTest, CreatingOverAFileInUseDoesNotTouchIt) {
  const OtherProcess reader(path_, kReader);
  run_in_main_loop([&]() coroutine_fn {
    NewFiles files;
    const auto result = type_->create_file(path_, CreateOptions(type_->create_options()), files);
    EXPECT_EQ(result.error().message(), "Failed to get \"write\" lock");
  });
  EXPECT_EQ(std::filesystem::file_size(path_), 1U << 20);
}

/// Runs qemu-io on path_ as a qcow2 image and returns what it prints.
std::string run(const std::string& command) {
  std::string output;
  FILE* const pipe = popen((command + " 2>&1").c_str(), "r");
  char buffer[4096];
  while (const size_t count = fread(buffer, 1, sizeof(buffer), pipe)) output.append(buffer, count);
  pclose(pipe);
  return output;
}

TEST_F(FileLocksTest, QemuRespectsOurLocksAndWeRespectItsOwn) {
  if (!installed("qemu-img") || !installed("qemu-io")) GTEST_SKIP() << "qemu-img and qemu-io are not installed";
  run("qemu-img create -f qcow2 " + path_ + " 1M");
  {
    const OtherProcess writer(path_, kWriter);
    EXPECT_THAT(run("qemu-img info " + path_), HasSubstr("Failed to get shared \"write\" lock"));
    EXPECT_THAT(run("qemu-img resize -f qcow2 " + path_ + " 2M"), HasSubstr("Failed to get \"write\" lock"));
    EXPECT_THAT(run("qemu-img info -U " + path_), HasSubstr("file format: qcow2"));
  }
  {
    const OtherProcess reader(path_, kReader);
    EXPECT_THAT(run("qemu-img check " + path_), HasSubstr("No errors"));
    EXPECT_THAT(run("qemu-img resize -f qcow2 " + path_ + " 2M"), HasSubstr("Failed to get \"write\" lock"));
  }
  // qemu-io prompts when it has the image open, and ends when its input does.
  int input[2], output[2];
  ASSERT_EQ(pipe2(input, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(output, O_CLOEXEC), 0);
  const pid_t peer = fork();
  if (peer == 0) {
    dup2(input[0], 0);
    dup2(output[1], 1);
    execlp("qemu-io", "qemu-io", "-f", "qcow2", path_.c_str(), nullptr);
    _exit(127);
  }
  close(input[0]);
  close(output[1]);
  char prompt = 0;
  EXPECT_EQ(::read(output[0], &prompt, 1), 1);
  EXPECT_EQ(conflict({}, kReader), "Failed to get shared \"write\" lock");
  EXPECT_EQ(conflict(writable(), kWriter), "Failed to get \"write\" lock");
  close(input[1]);
  waitpid(peer, nullptr, 0);
  close(output[0]);
  EXPECT_EQ(conflict(writable(), kWriter), "");
}

}  // namespace
}  // namespace coimg
