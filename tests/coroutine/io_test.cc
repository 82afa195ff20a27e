#include "coroutine/io.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "coroutine/aio_context.h"
#include "coroutine/co_group.h"
#include "coroutine/io_engine.h"
#include "coroutine/main_loop.h"
#include "tests/coroutine/refuse_syscall.h"

namespace coimg {
namespace {

/// Sets COIMG_AIO, and puts back what was there.
class EngineVariable {
 public:
  explicit EngineVariable(const char* value) {
    const char* const before = getenv("COIMG_AIO");
    if (before != nullptr) before_ = before;
    setenv("COIMG_AIO", value, 1);
  }
  ~EngineVariable() {
    if (before_.empty()) {
      unsetenv("COIMG_AIO");
    } else {
      setenv("COIMG_AIO", before_.c_str(), 1);
    }
  }
  EngineVariable(const EngineVariable&) = delete;
  EngineVariable& operator=(const EngineVariable&) = delete;

 private:
  std::string before_;
};

/// Runs a coroutine in a thread of its own, and thereby with an engine of its own.
void run_in_new_thread(const std::function<void()>& body) {
  std::thread([&] { run_in_main_loop(body); }).join();
}

class ScratchFile {
 public:
  ScratchFile() {
    std::string path = testing::TempDir() + "coimg-io-XXXXXX";
    fd_ = mkstemp(path.data());
    EXPECT_GE(fd_, 0);
    unlink(path.c_str());
  }
  ~ScratchFile() { close(fd_); }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

int64_t read_at(int fd, void* buffer, size_t bytes, uint64_t offset) coroutine_fn;
int64_t write_at(int fd, const void* buffer, size_t bytes, uint64_t offset) coroutine_fn;

int64_t read_at(int fd, void* buffer, size_t bytes, uint64_t offset) {
  const iovec part = {buffer, bytes};
  return co_preadv(fd, {&part, 1}, offset);
}

int64_t write_at(int fd, const void* buffer, size_t bytes, uint64_t offset) {
  const iovec part = {const_cast<void*>(buffer), bytes};
  return co_pwritev(fd, {&part, 1}, offset);
}

class IoTest : public testing::TestWithParam<IoEngineKind> {
 protected:
  void SetUp() override {
    run_in_new_thread([this]() coroutine_fn {
      if (io_engine_kind() != GetParam()) refused_ = true;
    });
    if (refused_) GTEST_SKIP() << "the kernel refuses " << io_engine_name(GetParam());
  }

  const EngineVariable variable_{io_engine_name(GetParam())};
  const ScratchFile file_;
  bool refused_ = false;
};

/// `buffer` in up to `max_parts` pieces, some of them empty.
std::vector<iovec> cut(uint8_t* buffer, size_t bytes, size_t max_parts, std::mt19937& random) {
  std::vector<iovec> parts;
  while (bytes > 0 && parts.size() + 1 < max_parts) {
    const size_t length = random() % (bytes + 1);
    parts.push_back({buffer, length});
    buffer += length;
    bytes -= length;
  }
  parts.push_back({buffer, bytes});
  return parts;
}

TEST_P(IoTest, RandomTransfersMatchAByteArray) {
  static constexpr size_t kFileBytes = 1 << 20;
  run_in_new_thread([this]() coroutine_fn {
    std::mt19937 random(20240607);  // NOLINT(cert-msc32-c, cert-msc51-cpp): repeatable
    std::vector<uint8_t> model(kFileBytes, 0);
    ASSERT_EQ(co_ftruncate(file_.fd(), kFileBytes), 0);
    for (int i = 0; i < 2000; ++i) {
      const size_t limit = i % 10 == 0 ? 400'000 : 10'000;
      const size_t offset = random() % kFileBytes;
      const size_t bytes = std::min<size_t>(random() % limit, kFileBytes - offset);
      std::vector<uint8_t> buffer(bytes);
      std::generate(buffer.begin(), buffer.end(), std::ref(random));
      const std::vector<iovec> parts = cut(buffer.data(), bytes, 1 + random() % 8, random);
      if (random() % 2 == 0) {
        ASSERT_EQ(co_pwritev(file_.fd(), parts, offset), static_cast<int64_t>(bytes));
        std::copy(buffer.begin(), buffer.end(), model.begin() + static_cast<ptrdiff_t>(offset));
      } else {
        ASSERT_EQ(co_preadv(file_.fd(), parts, offset), static_cast<int64_t>(bytes));
        ASSERT_TRUE(std::equal(buffer.begin(), buffer.end(), model.begin() + static_cast<ptrdiff_t>(offset)));
      }
    }
  });
}

TEST_P(IoTest, ReadsAreShortAtTheEndOfTheFile) {
  run_in_new_thread([this]() coroutine_fn {
    char buffer[100];
    ASSERT_EQ(write_at(file_.fd(), "0123456789", 10, 0), 10);
    EXPECT_EQ(read_at(file_.fd(), buffer, sizeof buffer, 4), 6);
    EXPECT_EQ(std::string(buffer, 6), "456789");
    EXPECT_EQ(read_at(file_.fd(), buffer, sizeof buffer, 10), 0);
    EXPECT_EQ(read_at(file_.fd(), buffer, sizeof buffer, 1000), 0);
    EXPECT_EQ(co_preadv(file_.fd(), {}, 0), 0);
  });
}

TEST_P(IoTest, ErrorsAreNegativeErrnos) {
  run_in_new_thread([this]() coroutine_fn {
    char buffer[10] = {};
    EXPECT_EQ(read_at(-1, buffer, sizeof buffer, 0), -EBADF);
    EXPECT_EQ(write_at(-1, buffer, sizeof buffer, 0), -EBADF);
    EXPECT_EQ(co_fsync(-1), -EBADF);
    EXPECT_EQ(co_fdatasync(-1), -EBADF);
    EXPECT_EQ(co_fallocate(-1, 0, 0, 1), -EBADF);
    EXPECT_EQ(co_ftruncate(-1, 0), -EBADF);
    EXPECT_EQ(co_fallocate(file_.fd(), 0, 0, 0), -EINVAL);
    const int read_only = open("/dev/null", O_RDONLY | O_CLOEXEC);
    EXPECT_EQ(write_at(read_only, buffer, sizeof buffer, 0), -EBADF);
    close(read_only);
  });
}

TEST_P(IoTest, OffsetsBeyondTheSignedRangeAreRefused) {
  run_in_new_thread([this]() coroutine_fn {
    char buffer[10] = {};
    ASSERT_EQ(write_at(file_.fd(), "0123456789", 10, 0), 10);
    for (const uint64_t offset : {UINT64_MAX, uint64_t{1} << 63}) {
      EXPECT_EQ(read_at(file_.fd(), buffer, sizeof buffer, offset), -EINVAL);
      EXPECT_EQ(write_at(file_.fd(), buffer, sizeof buffer, offset), -EINVAL);
      EXPECT_EQ(co_fallocate(file_.fd(), 0, offset, 1), -EINVAL);
      EXPECT_EQ(co_fallocate(file_.fd(), 0, 0, offset), -EINVAL);
      EXPECT_EQ(co_ftruncate(file_.fd(), offset), -EINVAL);
    }
  });
}

TEST_P(IoTest, MoreVectorsThanOneCallTakesGiveAShortTransfer) {
  run_in_new_thread([this]() coroutine_fn {
    std::vector<char> bytes(3 * IOV_MAX, 'x');
    std::vector<iovec> parts;
    for (char& byte : bytes) parts.push_back({&byte, 1});
    EXPECT_EQ(co_pwritev(file_.fd(), parts, 0), IOV_MAX);
    EXPECT_EQ(co_preadv(file_.fd(), parts, 1), IOV_MAX - 1);
  });
}

TEST_P(IoTest, FilesAreSyncedAndResized) {
  run_in_new_thread([this]() coroutine_fn {
    ASSERT_EQ(write_at(file_.fd(), "data", 4, 0), 4);
    EXPECT_EQ(co_fsync(file_.fd()), 0);
    EXPECT_EQ(co_fdatasync(file_.fd()), 0);
    EXPECT_EQ(co_ftruncate(file_.fd(), 12345), 0);
    struct stat status{};
    ASSERT_EQ(fstat(file_.fd(), &status), 0);
    EXPECT_EQ(status.st_size, 12345);
    EXPECT_EQ(co_fallocate(file_.fd(), 0, 20000, 10000), 0);
    ASSERT_EQ(fstat(file_.fd(), &status), 0);
    EXPECT_EQ(status.st_size, 30000);
  });
}

TEST_P(IoTest, PunchedHolesReadAsZeroes) {
  run_in_new_thread([this]() coroutine_fn {
    const std::vector<uint8_t> data(1 << 20, 0xaa);
    ASSERT_EQ(write_at(file_.fd(), data.data(), data.size(), 0), static_cast<int64_t>(data.size()));
    const int result = co_fallocate(file_.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 65536);
    if (result == -EOPNOTSUPP) GTEST_SKIP() << "the file system cannot punch holes";
    ASSERT_EQ(result, 0);
    std::vector<uint8_t> expected = data;
    std::fill(expected.begin() + 4096, expected.begin() + 4096 + 65536, 0);
    std::vector<uint8_t> read(data.size(), 0x55);
    ASSERT_EQ(read_at(file_.fd(), read.data(), read.size(), 0), static_cast<int64_t>(read.size()));
    EXPECT_EQ(read, expected);
  });
}

TEST_P(IoTest, AThousandRequestsAreInFlight) {
  static constexpr size_t kRequests = 1000;
  static constexpr size_t kBytes = 4096;
  run_in_new_thread([this]() coroutine_fn {
    CoGroup group;
    size_t started = 0;
    size_t most_waiting = 0;
    size_t finished = 0;
    for (size_t i = 0; i < kRequests; ++i) {
      group.start([&, i]() coroutine_fn {
        const std::vector<uint8_t> data(kBytes, static_cast<uint8_t>(i));
        ++started;
        EXPECT_EQ(write_at(file_.fd(), data.data(), kBytes, i * kBytes), static_cast<int64_t>(kBytes));
        most_waiting = std::max(most_waiting, started - finished);
        ++finished;
      });
    }
    group.wait_all();
    EXPECT_EQ(most_waiting, kRequests);
    for (size_t i = 0; i < kRequests; ++i) {
      group.start([&, i]() coroutine_fn {
        std::vector<uint8_t> data(kBytes);
        EXPECT_EQ(read_at(file_.fd(), data.data(), kBytes, i * kBytes), static_cast<int64_t>(kBytes));
        EXPECT_EQ(data, std::vector<uint8_t>(kBytes, static_cast<uint8_t>(i)));
      });
    }
    group.wait_all();
  });
}

TEST_P(IoTest, ThreadsHaveEnginesOfTheirOwn) {
  std::vector<std::thread> threads;
  for (uint8_t n = 0; n < 4; ++n) {
    threads.emplace_back([this, n] {
      run_in_main_loop([&]() coroutine_fn {
        const std::vector<uint8_t> data(5000, n);
        std::vector<uint8_t> read(5000);
        for (int i = 0; i < 100; ++i) {
          ASSERT_EQ(write_at(file_.fd(), data.data(), data.size(), n * 5000U), 5000);
          ASSERT_EQ(read_at(file_.fd(), read.data(), read.size(), n * 5000U), 5000);
          ASSERT_EQ(read, data);
        }
      });
    });
  }
  for (std::thread& thread : threads) thread.join();
}

INSTANTIATE_TEST_SUITE_P(Engines, IoTest, testing::Values(IoEngineKind::kThreads, IoEngineKind::kIoUring),
                         [](const auto& engine) {
                           return std::string(engine.param == IoEngineKind::kThreads ? "Threads" : "IoUring");
                         });

/// Each system call that a sandbox or an old kernel may refuse.
TEST(IoEngineChoiceTest, ThreadsStandInWhereIoUringIsRefused) {
  const EngineVariable variable("io_uring");
  for (const unsigned number : {SYS_io_uring_setup, SYS_io_uring_enter}) {
    for (const unsigned error : {EPERM, ENOSYS, ENOMEM}) {
      std::thread([=] {
        ASSERT_TRUE(test::refuse_syscall(number, error));
        run_in_main_loop([]() coroutine_fn {
          EXPECT_EQ(io_engine_kind(), IoEngineKind::kThreads);
          char buffer[10];
          const ScratchFile file;
          EXPECT_EQ(read_at(file.fd(), buffer, sizeof buffer, 0), 0);
        });
      }).join();
    }
  }
}

TEST(IoEngineChoiceTest, ARingWithoutProbeStillAllocates) {
  const EngineVariable variable("io_uring");
  std::thread([] {
    ASSERT_TRUE(test::refuse_syscall(SYS_io_uring_register, EINVAL));
    run_in_main_loop([]() coroutine_fn {
      const ScratchFile file;
      EXPECT_EQ(co_fallocate(file.fd(), 0, 0, 100), 0);
    });
  }).join();
}

/// In a process of its own, as it is said once a process.
TEST(IoEngineChoiceDeathTest, AnUnknownNameIsWarnedOfOnce) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto warns_once = [](const std::string& output) {
    const size_t first = output.find("'carrier-pigeon'");
    return first != std::string::npos && first == output.rfind("'carrier-pigeon'");
  };
  EXPECT_EXIT(
      {
        const EngineVariable variable("carrier-pigeon");
        for (int i = 0; i < 2; ++i) {
          run_in_new_thread([] { static_cast<void>(io_engine_kind()); });
        }
        _exit(0);
      },
      testing::ExitedWithCode(0), testing::Truly(warns_once));
}

}  // namespace
}  // namespace coimg
