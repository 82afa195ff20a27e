// Each I/O of an operation fails once, on each of the two files. The operation says so, the guest sees old or new bytes
// where it wrote and nothing else has changed, and the operation can be tried again.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "formats/add_cow/header.h"
#include "tests/formats/add_cow/image_fixture.h"

namespace coimg::add_cow {
namespace {

enum class Place { kFile, kImage };

/// An image with a few clusters allocated.
struct Subject {
  explicit Subject(const ImageKind& kind) coroutine_fn {
    const uint64_t size = kind.cluster_size * 9 + 512;
    backing = backing_content(kind, size, 7);
    content = backing;
    content.resize(size);
    auto file_node = make_fault_node(create_add_cow(kind, size));
    auto image_node = make_fault_node(poison(size));
    file = &fault_driver(*file_node);
    image = &fault_driver(*image_node);
    disk = open_image(kind, std::move(file_node), std::move(image_node), backing);
    write(kind.cluster_size * 2, pattern(kind.cluster_size * 3 / 2, 3));
    EXPECT_TRUE(disk->co_flush().ok());
  }

  void write(uint64_t offset, const Bytes& data) coroutine_fn {
    EXPECT_TRUE(disk->co_pwrite(offset, data).ok());
    std::ranges::copy(data, content.begin() + static_cast<ptrdiff_t>(offset));
  }
  FaultDriver& at(Place place) const { return place == Place::kFile ? *file : *image; }

  Bytes backing, content;
  FaultDriver* file = nullptr;
  FaultDriver* image = nullptr;
  std::unique_ptr<BlockNode> disk;
};

class AddCowFailure : public testing::TestWithParam<Place> {
 protected:
  /// Runs `operate`, which is to make `content` what it is given, with a failure at each I/O.
  void expect_survives(const std::function<Result<void>(BlockNode&)>& operate,
                       const std::function<void(Bytes&)>& change, Below below = Below::kShort) {
    const ImageKind kind{.cluster_size = 4096, .below = below};
    run_in_main_loop([&]() coroutine_fn {
      for (uint64_t nth = 1; nth < 200; ++nth) {
        SCOPED_TRACE(testing::Message() << "I/O " << nth << " fails");
        Subject subject(kind);
        Bytes after = subject.content;
        change(after);
        subject.at(GetParam()).fail_nth_io(nth, EIO);
        const auto failed = operate(*subject.disk);
        const bool fired = subject.at(GetParam()).fired();
        subject.at(GetParam()).heal();
        if (!fired) {
          EXPECT_TRUE(failed.ok()) << failed.error().message();
          EXPECT_EQ(read_all(*subject.disk), after);
          EXPECT_TRUE(subject.disk->co_close().ok());
          EXPECT_GT(nth, 1u) << "no I/O took place";
          return;
        }
        EXPECT_FALSE(failed.ok());
        const Bytes seen = read_all(*subject.disk);
        const size_t length = std::min({seen.size(), after.size(), subject.content.size()});
        for (size_t i = 0; i < length; ++i) ASSERT_TRUE(seen[i] == subject.content[i] || seen[i] == after[i]) << i;

        const auto again = operate(*subject.disk);
        ASSERT_TRUE(again.ok()) << again.error().message();
        EXPECT_EQ(read_all(*subject.disk), after);
        EXPECT_TRUE(subject.disk->co_flush().ok());
        expect_sound(*subject.disk);
        EXPECT_TRUE(subject.disk->co_close().ok());
      }
    });
  }
};

TEST_P(AddCowFailure, Writing) {
  const Bytes data = pattern(4096 * 5, 9);
  expect_survives(
      [&](BlockNode& disk) coroutine_fn -> Result<void> {
        COIMG_TRY(disk.co_pwrite(1000, data));
        return disk.co_flush();
      },
      [&](Bytes& content) { std::ranges::copy(data, content.begin() + 1000); });
}

TEST_P(AddCowFailure, Zeroing) {
  expect_survives(
      [&](BlockNode& disk) coroutine_fn -> Result<void> {
        COIMG_TRY(disk.co_pwrite_zeroes(1000, 4096 * 5, {.may_unmap = true}));
        return disk.co_flush();
      },
      [&](Bytes& content) { std::fill_n(content.begin() + 1000, 4096 * 5, std::byte{0}); });
}

TEST_P(AddCowFailure, Growing) {
  expect_survives([](BlockNode& disk) coroutine_fn { return disk.co_truncate(4096 * 20); },
                  [](Bytes& content) { content.resize(4096 * 20); }, Below::kLong);
}

TEST_P(AddCowFailure, Shrinking) {
  // The second try finds the size changed, and has to put the rest in order all the same.
  expect_survives(
      [](BlockNode& disk) coroutine_fn -> Result<void> {
        if (disk.length() == 4096 * 3) COIMG_TRY(disk.co_truncate(4096 * 3 + 512));
        return disk.co_truncate(4096 * 3);
      },
      [](Bytes& content) { content.resize(4096 * 3); });
}

TEST_P(AddCowFailure, GivingUpTheBackingFile) {
  expect_survives([](BlockNode& disk) coroutine_fn { return disk.co_change_backing_file("", ""); }, [](Bytes&) {});
}

TEST_P(AddCowFailure, NamingAnotherBackingFile) {
  if (GetParam() == Place::kImage) GTEST_SKIP() << "is nothing that concerns the image file";
  expect_survives(
      [](BlockNode& disk) coroutine_fn -> Result<void> {
        COIMG_TRY(disk.co_change_backing_file("other", "raw"));
        return disk.co_change_backing_file("base", "raw");
      },
      [](Bytes&) {});
}

TEST_P(AddCowFailure, Emptying) {
  expect_survives([](BlockNode& disk) coroutine_fn { return disk.co_make_empty(); },
                  [](Bytes& content) {
                    const Bytes below = backing_content({.cluster_size = 4096}, content.size(), 7);
                    std::ranges::fill(content, std::byte{0});
                    std::ranges::copy(below, content.begin());
                  });
}

TEST_P(AddCowFailure, Repairing) {
  expect_survives(
      [](BlockNode& disk) coroutine_fn -> Result<void> {
        COIMG_TRY(disk.co_check({.repair = RepairMode::kAll}));
        return {};
      },
      [](Bytes&) {});
}

// Whatever fails, there is no header without its bitmap.
TEST(AddCowCreateFailure, AnImageIsThereWholeOrNotAtAll) {
  run_in_main_loop([]() coroutine_fn {
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(testing::Message() << "I/O " << nth << " fails");
      CreateOptions options(add_cow_type().create_options());
      ASSERT_TRUE(options.set("size", "300M").ok() && options.set("cluster_size", "4k").ok());
      ASSERT_TRUE(options.set("image_file", "image").ok());
      const auto disk = std::make_shared<MemDisk>();
      const auto file = make_fault_node(disk);
      fault_driver(*file).fail_nth_io(nth, ENOSPC);
      const auto created = add_cow_type().create(file.get(), "disk", options);
      const bool fired = fault_driver(*file).fired();
      fault_driver(*file).heal();
      EXPECT_TRUE(file->co_close().ok());
      EXPECT_EQ(created.ok(), !fired);
      EXPECT_TRUE(!has_magic(disk->bytes) || disk->bytes.size() == 16384);
      if (!fired) {
        EXPECT_GT(nth, 2u);
        return;
      }
      EXPECT_EQ(created.error().errnum(), ENOSPC);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Places, AddCowFailure, testing::Values(Place::kFile, Place::kImage));

}  // namespace
}  // namespace coimg::add_cow
