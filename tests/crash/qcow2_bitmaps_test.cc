// The power goes at every point of sessions in which bitmaps record, are stored, and are changed. Whatever of the
// unflushed writes has reached the disk, the image must open, and a bitmap that claims to be true must know every
// change.
#include <gtest/gtest.h>

#include <random>

#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "tests/crash/suite.h"
#include "tests/formats/qcow2/bitmap_fixture.h"

namespace coimg::qcow2 {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kGranularity = 1024;

/// One session after the other on one disk; the power goes in each of them.
class BitmapCrashRun {
 public:
  BitmapCrashRun(const ImageKind& kind, uint64_t seed) coroutine_fn : kind_(kind), random_(seed) {
    size_ = kind.cluster_size * 24;
    disk_ = create_image(kind, size_);
    content_.resize(size_);
    starts_ = {content_};
  }

  /// One more session, and up to about `images` ways to end it.
  void session(size_t images) coroutine_fn {
    auto image = open_image(make_fault_node(disk_), {});
    ASSERT_NE(image, nullptr);
    if (!find_bitmap(*image, "a")) {
      ASSERT_TRUE(image->co_add_bitmap({.name = "a", .granularity = kGranularity}).ok());
      starts_ = {content_};
    } else {
      starts_ = {starts_.back()};
    }
    for (int i = 0; i < 12; ++i) step(*image);
    ASSERT_TRUE(image->co_close().ok());

    const WriteLog& log = fault_driver(*image->file()).write_log();
    const size_t entries = log.entries().size();
    const size_t ways = std::max<size_t>(images / (entries + 1), 1);
    const size_t distance = std::max<size_t>(entries / images, 1);
    for (size_t cut = random_() % distance; cut <= entries && !testing::Test::HasFailure(); cut += distance) {
      for (const PowerLoss& loss : power_losses(log, cut, ways, random_())) {
        SCOPED_TRACE(loss.what);
        crash(log.bytes_after_crash(loss.count, loss.survives), cut == entries);
      }
    }
  }

 private:
  uint64_t pick(uint64_t limit) { return random_() % limit; }

  void step(BlockNode& image) coroutine_fn {
    const uint64_t offset = pick(size_), bytes = 1 + pick(std::min(size_ - offset, kind_.cluster_size * 2));
    switch (pick(9)) {
      case 0:
        ASSERT_TRUE(image.co_flush().ok());
        break;
      case 1:
        ASSERT_TRUE(image.co_pwrite_zeroes(offset, bytes).ok());
        break;
      case 2:
        ASSERT_TRUE(image.co_pdiscard(offset, bytes).ok());
        break;
      case 3:
        change_bitmaps(image);
        break;
      case 4:
        if (pick(3) == 0) resize(image);
        break;
      default:
        ASSERT_TRUE(image.co_pwrite(offset, pattern(bytes, random_())).ok());
    }
    content_ = read_all(image);
  }

  void change_bitmaps(BlockNode& image) coroutine_fn {
    switch (pick(4)) {
      case 0:
        ASSERT_TRUE(image.co_clear_bitmap("a").ok());
        starts_.push_back(content_);
        break;
      case 1:
        if (find_bitmap(image, "b")) {
          ASSERT_TRUE(image.co_remove_bitmap("b").ok());
        } else {
          ASSERT_TRUE(image.co_add_bitmap({.name = "b", .granularity = 512}).ok());
        }
        break;
      case 2:
        if (!find_bitmap(image, "b")) break;
        ASSERT_TRUE(image.co_merge_bitmap("a", image, "b").ok());
        break;
      default:
        ASSERT_TRUE(image.co_remove_bitmap("a").ok());
        ASSERT_TRUE(image.co_add_bitmap({.name = "a", .granularity = kGranularity}).ok());
        starts_.push_back(content_);
    }
  }

  void resize(BlockNode& image) coroutine_fn {
    size_ = kSectorSize * (1 + pick(kind_.cluster_size * 48 / kSectorSize));
    ASSERT_TRUE(image.co_truncate(size_).ok());
    Bytes start = starts_.back();
    start.resize(size_);
    starts_.push_back(std::move(start));
  }

  void crash(Bytes bytes, bool closed) coroutine_fn {
    crash::count_image();
    crash::expect_sound_for_qemu({{"image", bytes}});
    const auto image = open_image(make_mem_node(std::make_shared<MemDisk>(std::move(bytes))), {});
    ASSERT_NE(image, nullptr);
    expect_sound(*image, /*leaks_allowed=*/true);
    const auto bitmap = find_bitmap(*image, "a");
    EXPECT_TRUE(!closed || (bitmap && !bitmap->inconsistent));
    if (bitmap && !bitmap->inconsistent) {
      const Bytes seen = read_all(*image);
      const std::vector<bool> dirty = dirty_granules(*image, "a");
      const bool covered = std::ranges::any_of(
          starts_, [&](const Bytes& start) { return !missed_granule(dirty, kGranularity, start, seen); });
      EXPECT_TRUE(covered) << "a change is missing from the bitmap";
    }
    ASSERT_TRUE(image->co_close().ok());
  }

  const ImageKind kind_;
  std::mt19937_64 random_;
  uint64_t size_ = 0;
  std::shared_ptr<MemDisk> disk_;
  Bytes content_;
  std::vector<Bytes> starts_;  ///< what "a" may be about: the content since which it has recorded, the latest last
};

class BitmapCrash : public testing::TestWithParam<ImageKind> {};

TEST_P(BitmapCrash, NeverLeavesABitmapThatMissesAChange) {
  constexpr size_t kSessions = 6;
  uint64_t seed = crash::seed();
  const size_t most_per_run = 3000;
  for (size_t left = crash::images_per_case(); left > 0 && !HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "COIMG_TEST_SEED=" << seed);
    const size_t images = std::min(left, most_per_run);
    left -= images;
    run_in_main_loop([&]() coroutine_fn {
      BitmapCrashRun run(GetParam(), seed);
      for (size_t session = 0; session < kSessions && !HasFailure(); ++session) {
        SCOPED_TRACE(testing::Message() << "session " << session);
        run.session(std::max<size_t>(images / kSessions, 1));
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, BitmapCrash,
                         testing::Values(ImageKind{.cluster_size = 512},
                                         ImageKind{.cluster_size = 1024, .refcount_bits = 1},
                                         ImageKind{.cluster_size = 4096, .refcount_bits = 64},
                                         ImageKind{.cluster_size = 8192}));

}  // namespace
}  // namespace coimg::qcow2
