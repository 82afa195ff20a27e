// Reads that map pages of the file: the same bytes as copies, no way back into the file, and files that are cut off.
#include "block/util/page_buffer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "block/io_vector.h"
#include "block/options.h"
#include "block/protocol/host_file.h"
#include "block/util/math.h"
#include "block/util/unique_fd.h"
#include "coroutine/aio_context.h"
#include "coroutine/main_loop.h"
#include "tests/coroutine/refuse_syscall.h"
#include "tests/support/vanishing_file.h"

namespace coimg {
namespace {

using Bytes = std::vector<std::byte>;

constexpr size_t kPage = 4096;

class PageBufferTest : public ::testing::Test {
 protected:
  PageBufferTest() {
    char name[] = "/tmp/coimg-pages-XXXXXX";
    directory_ = mkdtemp(name);
    path_ = directory_ + "/x";
  }
  void SetUp() override {
    if (!pages_can_be_mapped()) GTEST_SKIP() << "the file system of /tmp has no reads that do not wait";
  }
  ~PageBufferTest() override { std::filesystem::remove_all(directory_); }

  Bytes make_file(size_t bytes) {
    std::mt19937_64 random(bytes);
    Bytes content(bytes);
    for (std::byte& byte : content) byte = std::byte(random());
    fd_ = UniqueFd(::open(path_.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644));
    EXPECT_EQ(pwrite(fd_.get(), content.data(), bytes, 0), static_cast<ssize_t>(bytes));
    return content;
  }

  void with_driver(const std::function<void(BlockDriver&)>& body) const {
    run_in_main_loop([&]() coroutine_fn {
      Options options;
      auto file = type_->open(
          {.node = nullptr, .file = nullptr, .filename = path_, .options = &options, .flags = {}, .permissions = {}});
      ASSERT_TRUE(file.ok()) << file.error().message();
      body(**file);
      EXPECT_TRUE((*file)->close().ok());
    });
  }

  static bool is_in_memory(int fd) {
    struct statfs info{};
    return fstatfs(fd, &info) == 0 && info.f_type == TMPFS_MAGIC;
  }

  static bool same(std::span<const std::byte> seen, std::span<const std::byte> expected) {
    return std::ranges::equal(seen, expected);
  }

  std::unique_ptr<DriverType> type_ = make_file_driver_type();
  std::string directory_, path_;
  UniqueFd fd_;
};

TEST_F(PageBufferTest, MappedPagesAreTheFilesAndWritingThemChangesNoFile) {
  const Bytes content = make_file(64 * kPage);
  PageBuffer buffer(32 * kPage);
  ASSERT_TRUE(buffer.map(buffer.span(), fd_.get(), 8 * kPage).ok());
  EXPECT_TRUE(same(buffer.span(), std::span(content).subspan(8 * kPage, 32 * kPage)));
  std::ranges::fill(buffer.span().subspan(100, 2 * kPage), std::byte{7});
  EXPECT_EQ(buffer.span()[99], content[8 * kPage + 99]);
  Bytes stored(content.size());
  ASSERT_EQ(pread(fd_.get(), stored.data(), stored.size(), 0), static_cast<ssize_t>(stored.size()));
  EXPECT_EQ(stored, content);
  buffer.unmap(buffer.span().first(16 * kPage));
  EXPECT_TRUE(is_zero(buffer.span().first(16 * kPage))) << "memory of its own";
  EXPECT_TRUE(same(buffer.span().subspan(16 * kPage), std::span(content).subspan(24 * kPage, 16 * kPage)));
  EXPECT_FALSE(buffer.take_lost());
}

TEST_F(PageBufferTest, APageThatIsLostReadsAsZerosAndIsTold) {
  make_file(64 * kPage);
  PageBuffer buffer(64 * kPage), other(kPage);
  ASSERT_TRUE(buffer.map(buffer.span(), fd_.get(), 0).ok());
  ASSERT_EQ(ftruncate(fd_.get(), 10 * kPage), 0);
  EXPECT_FALSE(is_zero(buffer.span().first(10 * kPage)));
  EXPECT_FALSE(buffer.take_lost());
  EXPECT_TRUE(is_zero(buffer.span().subspan(10 * kPage)));
  EXPECT_TRUE(buffer.take_lost());
  EXPECT_FALSE(buffer.take_lost()) << "asking resets it";
  EXPECT_FALSE(other.take_lost());
}

TEST_F(PageBufferTest, TellsHowMuchIsInThePageCache) {
  make_file(64 * kPage);
  ASSERT_EQ(fsync(fd_.get()), 0);
  EXPECT_NE(find_cached(fd_.get(), 0, 64 * kPage), Cached::kNotAll);
  EXPECT_EQ(find_cached(fd_.get(), 0, 128 * kPage), Cached::kNotAll) << "half of it is behind the end";
  ASSERT_EQ(posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  if (is_in_memory(fd_.get())) GTEST_SKIP() << "the file system of /tmp keeps files in memory";
  EXPECT_EQ(find_cached(fd_.get(), 0, 64 * kPage), Cached::kNotAll);
  Bytes memory(64 * kPage);
  ASSERT_EQ(pread(fd_.get(), memory.data(), memory.size(), 0), static_cast<ssize_t>(memory.size()));
  EXPECT_NE(find_cached(fd_.get(), 0, 64 * kPage), Cached::kNotAll);
}

TEST_F(PageBufferTest, AFileThatIsNotInThePageCacheIsCopied) {
  const Bytes content = make_file(256 * kPage);
  ASSERT_EQ(fsync(fd_.get()), 0);
  ASSERT_EQ(posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  if (is_in_memory(fd_.get())) GTEST_SKIP() << "the file system of /tmp keeps files in memory";
  with_driver([&](BlockDriver& file) coroutine_fn {
    PageBuffer pages(256 * kPage);
    for (int i = 0; i < 2; ++i) {  // the second time it is cached, but mapping is not tried again so soon
      ASSERT_TRUE(file.preadv(0, IoVector(pages, pages.span())).ok());
      EXPECT_TRUE(same(pages.span(), content));
      EXPECT_EQ(pwrite(fd_.get(), "changed", 7, 0), 7);
      EXPECT_TRUE(same(pages.span(), content)) << "a copy does not follow the file";
      EXPECT_EQ(pwrite(fd_.get(), content.data(), 7, 0), 7);
    }
  });
}

TEST_F(PageBufferTest, OldKernelsTellFromTheEndsOfAPart) {
#ifdef SYS_cachestat
  constexpr long kCachestat = SYS_cachestat;
#else
  constexpr long kCachestat = 451;
#endif
  make_file(64 * kPage);
  const auto in_child = [&] {
    if (!test::refuse_syscall(kCachestat, ENOSYS)) _exit(0);
    if (find_cached(fd_.get(), 0, 64 * kPage) != Cached::kNearlyAll) _exit(1);
    if (find_cached(fd_.get(), 0, 65 * kPage) != Cached::kNotAll) _exit(2);
    _exit(0);
  };
  EXPECT_EXIT(in_child(), ::testing::ExitedWithCode(0), "");
}

TEST_F(PageBufferTest, WhoOnlyReadsLetsTheLoopHaveItsTurn) {
  make_file(256 * kPage);
  with_driver([&](BlockDriver& file) coroutine_fn {
    PageBuffer pages(256 * kPage);
    bool had_its_turn = false;
    AioContext::current().schedule_oneshot([&] { had_its_turn = true; });
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(file.preadv(0, IoVector(pages, pages.span())).ok());
    EXPECT_TRUE(had_its_turn);
  });
}

TEST_F(PageBufferTest, WhatTheFileDoesNotHaveCannotBeMapped) {
  make_file(4 * kPage);
  PageBuffer buffer(8 * kPage);
  EXPECT_FALSE(buffer.map(buffer.span(), fd_.get(), 0).ok());
  EXPECT_FALSE(buffer.map(buffer.span(), -1, 0).ok());
}

TEST_F(PageBufferTest, ManyBuffersAreNoErrorAndMapNothingAtWorst) {
  const Bytes content = make_file(4 * kPage);
  std::vector<std::unique_ptr<PageBuffer>> buffers;
  for (int i = 0; i < 1000; ++i) buffers.push_back(std::make_unique<PageBuffer>(4 * kPage));
  size_t mapped = 0;
  for (const auto& buffer : buffers) {
    if (!buffer->map(buffer->span(), fd_.get(), 0).ok()) continue;
    EXPECT_TRUE(same(buffer->span(), content));
    ++mapped;
  }
  EXPECT_GE(mapped, 100u);
  buffers.clear();
  PageBuffer again(4 * kPage);
  EXPECT_TRUE(again.map(again.span(), fd_.get(), 0).ok()) << "places are given back";
}

TEST_F(PageBufferTest, AnEmptyOneIsFine) {
  PageBuffer buffer(0);
  EXPECT_TRUE(buffer.span().empty());
  EXPECT_FALSE(buffer.take_lost());
}

TEST_F(PageBufferTest, AFileReadsTheSameWhateverTheOffsets) {
  const Bytes content = make_file(1 * kMiB + 1234);
  with_driver([&](BlockDriver& file) coroutine_fn {
    PageBuffer buffer(kMiB);
    std::mt19937_64 random(1);
    for (int round = 0; round < 300; ++round) {
      const bool aligned = random() % 2 == 0;
      const size_t offset = random() % content.size() / (aligned ? kPage : 1) * (aligned ? kPage : 1);
      const size_t place = aligned ? random() % 16 * kPage : random() % 70000;
      const size_t bytes = 1 + random() % (buffer.span().size() - place);
      const auto part = buffer.span().subspan(place, bytes);
      ASSERT_TRUE(file.preadv(offset, IoVector(buffer, part)).ok());
      Bytes expected(bytes);
      const size_t stored = std::min(bytes, content.size() - offset);
      std::copy_n(content.begin() + static_cast<ptrdiff_t>(offset), stored, expected.begin());
      ASSERT_TRUE(same(part, expected)) << "round " << round << ": " << bytes << " bytes at " << offset;
    }
    EXPECT_FALSE(buffer.take_lost());
  });
}

TEST_F(PageBufferTest, APartOfAReadThatWasZerosBeforeIsNotMappedOver) {
  const Bytes content = make_file(kMiB);
  with_driver([&](BlockDriver& file) coroutine_fn {
    PageBuffer buffer(kMiB);
    const IoVector all(buffer, buffer.span());
    ASSERT_TRUE(file.preadv(0, all).ok());
    all.fill(256 * kKiB, 256 * kKiB, std::byte{0});
    EXPECT_TRUE(same(buffer.span().first(256 * kKiB), std::span(content).first(256 * kKiB)));
    EXPECT_TRUE(is_zero(buffer.span().subspan(256 * kKiB, 256 * kKiB)));
    EXPECT_TRUE(same(buffer.span().subspan(512 * kKiB), std::span(content).subspan(512 * kKiB)));
  });
}

TEST_F(PageBufferTest, AFileThatIsCutOffBehindTheReadersBackIsAnErrorNotACrash) {
  make_file(kMiB);
  with_driver([&](BlockDriver& file) coroutine_fn {
    PageBuffer buffer(kMiB);
    ASSERT_EQ(ftruncate(fd_.get(), 512 * kKiB), 0);  // the driver does not know
    ASSERT_TRUE(file.preadv(0, IoVector(buffer, buffer.span())).ok());
    EXPECT_TRUE(is_zero(buffer.span().subspan(512 * kKiB)));
  });
  make_file(kMiB);
  with_driver([&](BlockDriver& file) coroutine_fn {
    PageBuffer buffer(kMiB);
    ASSERT_TRUE(file.preadv(0, IoVector(buffer, buffer.span())).ok());
    ASSERT_EQ(ftruncate(fd_.get(), 0), 0);
    EXPECT_TRUE(is_zero(buffer.span()));
    EXPECT_TRUE(buffer.take_lost());
  });
}

}  // namespace
}  // namespace coimg
