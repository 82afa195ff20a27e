// Changing the backing file's name and emptying an image: results, each I/O failing once, and power losses.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "tests/formats/qcow2/image_fixture.h"

namespace coimg::qcow2 {
namespace {

using Bytes = std::vector<std::byte>;

constexpr ImageKind kKind{.cluster_size = 512, .backing = true};
constexpr uint64_t kSize = 256 * 512;

/// An overlay with content of its own, and a snapshot when asked for.
std::shared_ptr<MemDisk> make_disk(const Bytes& backing, bool with_snapshot) coroutine_fn {
  const auto disk = create_image(kKind, kSize);
  const auto image = open_image(make_mem_node(disk), backing);
  EXPECT_TRUE(image->co_pwrite(1000, pattern(30000, 2)).ok());
  if (with_snapshot) {
    EXPECT_TRUE(image->co_create_snapshot("one").ok());
    EXPECT_TRUE(image->co_pwrite(20000, pattern(5000, 3)).ok());
  }
  EXPECT_TRUE(image->co_pwrite_zeroes(60000, 9000).ok());
  EXPECT_TRUE(image->co_close().ok());
  return disk;
}

Bytes content_of(const std::shared_ptr<MemDisk>& disk, const Bytes& backing, bool leaks_allowed) coroutine_fn {
  const auto image = open_image(make_mem_node(disk), backing);
  expect_sound(*image, leaks_allowed);
  Bytes content = read_all(*image);
  EXPECT_TRUE(image->co_close().ok());
  return content;
}

std::string backing_name(BlockNode& image) coroutine_fn {
  const auto info = image.co_info();
  EXPECT_TRUE(info.ok());
  return info.ok() ? info->backing_filename + ":" + info->backing_format : "";
}

/// Each cluster is as in the one or in the other.
void expect_mixture(const Bytes& seen, const Bytes& a, const Bytes& b) {
  for (size_t at = 0; at < seen.size(); ++at) {
    ASSERT_TRUE(seen[at] == a[at] || seen[at] == b[at]) << "byte " << at;
  }
}

TEST(MakeEmpty, TheBackingFileShowsAndSnapshotsStay) {
  run_in_main_loop([]() coroutine_fn {
    const Bytes backing = pattern(kSize, 1);
    for (const bool with_snapshot : {false, true}) {
      const auto disk = make_disk(backing, with_snapshot);
      const size_t before = disk->bytes.size();
      const auto image = open_image(make_mem_node(disk), backing);
      ASSERT_TRUE(image->co_make_empty().ok());
      EXPECT_TRUE(read_all(*image) == backing);
      ASSERT_TRUE(image->co_close().ok());
      EXPECT_TRUE(content_of(disk, backing, false) == backing);
      if (!with_snapshot) {
        EXPECT_LT(disk->bytes.size(), before / 8);
        continue;
      }
      const auto again = open_image(make_mem_node(disk), backing);
      ASSERT_TRUE(again->co_apply_snapshot({.id = {}, .name = "one"}).ok());
      Bytes expected = backing;
      std::ranges::copy(pattern(30000, 2), expected.begin() + 1000);
      EXPECT_TRUE(read_all(*again) == expected);
      ASSERT_TRUE(again->co_close().ok());
    }
  });
}

TEST(MakeEmpty, AFailedIoLeavesASoundImage) {
  run_in_main_loop([]() coroutine_fn {
    const Bytes backing = pattern(kSize, 1);
    const Bytes full = content_of(make_disk(backing, false), backing, false);
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(testing::Message() << "I/O number " << nth << " fails");
      const auto disk = make_disk(backing, false);
      const auto image = open_image(make_fault_node(disk), backing);
      FaultDriver& file = fault_driver(*image->file());
      file.fail_nth_io(nth, EIO);
      const auto emptied = image->co_make_empty();
      const bool fired = file.fired();
      file.heal();
      (void)image->co_close();
      const Bytes seen = content_of(disk, backing, /*leaks_allowed=*/true);
      if (emptied.ok()) {
        EXPECT_TRUE(seen == backing);
      } else {
        expect_mixture(seen, full, backing);
      }
      if (!fired) {
        EXPECT_GT(nth, 5u);
        return;
      }
    }
  });
}

/// Runs `change` and cuts the power behind each of its I/Os.
void cut_everywhere(bool with_snapshot, const std::function<void(BlockNode&)>& change,
                    const std::function<void(const std::shared_ptr<MemDisk>&)>& look) coroutine_fn {
  const Bytes backing = pattern(kSize, 1);
  const auto image = open_image(make_fault_node(make_disk(backing, with_snapshot)), backing);
  change(*image);
  const FaultDriver& file = fault_driver(*image->file());
  for (size_t cut = 0; cut <= file.log().size(); ++cut) {
    for (uint64_t seed = 0; seed < 16; ++seed) {
      SCOPED_TRACE(testing::Message() << "power lost behind I/O " << cut << ", choice " << seed);
      look(std::make_shared<MemDisk>(file.bytes_after_crash(cut, seed == 0 ? 0 : seed + 100 * cut)));
      if (testing::Test::HasFatalFailure()) return;
    }
  }
  ASSERT_TRUE(image->co_close().ok());
}

TEST(MakeEmpty, ACrashLeavesASoundImage) {
  run_in_main_loop([]() coroutine_fn {
    const Bytes backing = pattern(kSize, 1);
    for (const bool with_snapshot : {false, true}) {
      const Bytes full = content_of(make_disk(backing, with_snapshot), backing, false);
      cut_everywhere(
          with_snapshot, [](BlockNode& image) coroutine_fn { EXPECT_TRUE(image.co_make_empty().ok()); },
          [&](const std::shared_ptr<MemDisk>& disk)
              coroutine_fn { expect_mixture(content_of(disk, backing, /*leaks_allowed=*/true), full, backing); });
    }
  });
}

TEST(ChangeBackingFile, TheHeaderNamesTheNewOne) {
  run_in_main_loop([]() coroutine_fn {
    const auto disk = make_disk(pattern(kSize, 1), false);
    for (const std::string name : {"other", "a longer name than before", ""}) {
      const auto image = open_image(make_mem_node(disk), {});
      const std::string format = name.empty() ? "" : "qcow2";
      ASSERT_TRUE(image->co_change_backing_file(name, format).ok());
      ASSERT_TRUE(image->co_close().ok());
      const auto again = open_image(make_mem_node(disk), {});
      EXPECT_EQ(backing_name(*again), name + ":" + format);
      expect_sound(*again);
      ASSERT_TRUE(again->co_close().ok());
    }
  });
}

TEST(ChangeBackingFile, ANameThatDoesNotFitIsRefused) {
  run_in_main_loop([]() coroutine_fn {
    const auto image = open_image(make_mem_node(make_disk(pattern(kSize, 1), false)), {});
    EXPECT_EQ(image->co_change_backing_file(std::string(600, 'x'), "raw").error().errnum(), ENOSPC);
    EXPECT_EQ(image->co_change_backing_file(std::string(1024, 'x'), "raw").error().errnum(), EINVAL);
    EXPECT_EQ(image->co_change_backing_file("x", "a-very-long-format").error().errnum(), EINVAL);
    EXPECT_EQ(backing_name(*image), "base:raw");
    ASSERT_TRUE(image->co_close().ok());
  });
}

// What was written before hides the difference between the backing files: it must not come after the new name.
TEST(ChangeBackingFile, ACrashShowsTheNewNameOnlyWithWhatWasWrittenBefore) {
  run_in_main_loop([]() coroutine_fn {
    const Bytes backing = pattern(kSize, 1), written = pattern(4000, 7);
    size_t with_new_name = 0;
    cut_everywhere(
        false,
        [&](BlockNode& image) coroutine_fn {
          EXPECT_TRUE(image.co_pwrite(80000, written).ok());
          EXPECT_TRUE(image.co_change_backing_file("other", "qcow2").ok());
        },
        [&](const std::shared_ptr<MemDisk>& disk) coroutine_fn {
          const auto image = open_image(make_mem_node(disk), backing);
          ASSERT_NE(image, nullptr);
          expect_sound(*image, /*leaks_allowed=*/true);
          const std::string name = backing_name(*image);
          Bytes seen(written.size());
          EXPECT_TRUE(image->co_pread(80000, seen).ok());
          EXPECT_TRUE(image->co_close().ok());
          if (name == "base:raw") return;
          EXPECT_EQ(name, "other:qcow2");
          EXPECT_TRUE(seen == written);
          ++with_new_name;
        });
    EXPECT_GT(with_new_name, 0u);
  });
}

}  // namespace
}  // namespace coimg::qcow2
