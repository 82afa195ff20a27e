// Writing: single rules of the format, shared clusters, damaged images, and each I/O failing once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "block/util/math.h"
#include "coroutine/co_group.h"
#include "coroutine/main_loop.h"
#include "tests/formats/qcow2/image_bytes.h"
#include "tests/formats/qcow2/image_fixture.h"

namespace coimg::qcow2 {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kCluster = 4096;

Bytes text(uint64_t bytes, char letter) { return {bytes, std::byte(letter)}; }

/// An image with 4 KiB clusters, in memory.
class Image {
 public:
  explicit Image(uint64_t size, ImageKind kind = {.cluster_size = kCluster}, Bytes backing = {},
                 OpenFlags flags = {.writable = true}) coroutine_fn
      : disk(create_image(kind, size)),
        node(open_image(make_fault_node(disk), backing, flags)) {}
  void close() coroutine_fn {
    expect_sound(*node);
    EXPECT_TRUE(node->co_close().ok());
  }
  BlockStatus status(uint64_t offset) coroutine_fn {
    auto found = node->co_block_status(offset, kCluster);
    EXPECT_TRUE(found.ok());
    return found.value_or(BlockStatus{});
  }
  FaultDriver& file() { return fault_driver(*node->file()); }

  std::shared_ptr<MemDisk> disk;
  std::unique_ptr<BlockNode> node;
};

TEST(Write, ALargeRequestGoesToOneRunInOneWrite) {
  run_in_main_loop([]() coroutine_fn {
    Image image(4 * kMiB);
    ASSERT_TRUE(image.node->co_pwrite(100, text(kMiB, 'x')).ok());
    size_t data_writes = 0;
    for (const LoggedIo& io : image.file().log()) {
      data_writes += io.op == kOpWrite && io.bytes > 64 * kKiB;
    }
    EXPECT_EQ(data_writes, 1u);
    EXPECT_EQ(image.status(kCluster).host_offset.value() + kCluster, image.status(2 * kCluster).host_offset.value());
    image.close();
  });
}

TEST(Write, EntriesThatPointBehindTheEndOfTheFileCanBeReplaced) {
  constexpr uint64_t kGuestCluster = ImageBytes::kDataClusters;  // the first one without data
  for (const uint64_t entry : {kL2Compressed | 0x40000000, uint64_t{0x40000000}}) {
    run_in_main_loop([=]() coroutine_fn {
      ImageBytes bytes({});
      bytes.put64(bytes.l2_entry_at(kGuestCluster), entry);
      const auto medium = std::make_shared<MemDisk>(bytes.bytes);
      const auto image = open_image(make_mem_node(medium, {}, {.writable = true}), {}, {.writable = true});
      ASSERT_TRUE(image->co_pwrite(kGuestCluster * kCluster, text(kCluster, 'x')).ok()) << std::hex << entry;
      Bytes read(kCluster);
      ASSERT_TRUE(image->co_pread(kGuestCluster * kCluster, read).ok());
      EXPECT_EQ(read, text(kCluster, 'x'));
      ASSERT_TRUE(image->co_flush().ok());
      expect_sound(*image);
      EXPECT_TRUE(image->co_close().ok());
    });
  }
}

TEST(Write, ClustersInPlaceAreWrittenWithoutTouchingMetadata) {
  run_in_main_loop([]() coroutine_fn {
    Image image(kMiB);
    ASSERT_TRUE(image.node->co_pwrite(0, text(8 * kCluster, 'a')).ok());
    ASSERT_TRUE(image.node->co_flush().ok());
    const size_t before = image.file().log().size();
    ASSERT_TRUE(image.node->co_pwrite(10, text(5 * kCluster, 'b')).ok());
    ASSERT_TRUE(image.node->co_flush().ok());
    ASSERT_EQ(image.file().log().size(), before + 2);
    EXPECT_EQ(image.file().log()[before].bytes, 5 * kCluster);
    EXPECT_EQ(image.file().log()[before + 1].op, kOpFlush);
    image.close();
  });
}

TEST(Write, ZeroedClustersKeepTheirPlaceUnlessTheyMayBeUnmapped) {
  run_in_main_loop([]() coroutine_fn {
    Image image(kMiB);
    ASSERT_TRUE(image.node->co_pwrite(0, text(2 * kCluster, 'a')).ok());
    const auto host = image.status(0).host_offset;
    ASSERT_TRUE(image.node->co_pwrite_zeroes(0, kCluster).ok());
    EXPECT_TRUE(image.status(0).zero);
    EXPECT_EQ(image.status(0).host_offset, host);
    ASSERT_TRUE(image.node->co_pwrite(7, text(5, 'b')).ok());
    EXPECT_EQ(image.status(0).host_offset, host) << "the place was kept for this";
    Bytes seen = read_all(*image.node);
    EXPECT_EQ(seen[6], std::byte{0});
    EXPECT_EQ(seen[7], std::byte{'b'});
    EXPECT_EQ(seen[12], std::byte{0});
    ZeroOptions unmap;
    unmap.may_unmap = true;
    ASSERT_TRUE(image.node->co_pwrite_zeroes(0, kCluster, unmap).ok());
    EXPECT_TRUE(image.status(0).zero);
    EXPECT_EQ(image.status(0).host_offset, std::nullopt);
    image.close();
  });
}

TEST(Write, ZerosUpToTheEndOfTheDiskDoNotLengthenARawDataFile) {
  run_in_main_loop([]() coroutine_fn {
    constexpr uint64_t kSize = kCluster + 1024;  // ends inside a cluster
    const ImageKind kind{.cluster_size = kCluster, .data_file = DataFile::kRaw};
    const auto data = std::make_shared<MemDisk>(Bytes(kSize));
    const auto image =
        open_image(make_mem_node(create_image(kind, kSize)), {}, {.writable = true}, make_mem_node(data));
    ASSERT_NE(image, nullptr);
    ASSERT_TRUE(image->co_pwrite(0, text(kSize, 'a')).ok());
    ASSERT_TRUE(image->co_pwrite_zeroes(kCluster + 512, 512).ok());
    Bytes expected = text(kSize - 512, 'a');
    expected.resize(kSize);
    EXPECT_TRUE(data->bytes == expected) << data->bytes.size() << " bytes";
    EXPECT_TRUE(image->co_close().ok());
  });
}

TEST(Write, ZeroingPartOfAnEmptyClusterWritesNothing) {
  run_in_main_loop([]() coroutine_fn {
    Image image(kMiB);
    ASSERT_TRUE(image.node->co_pwrite_zeroes(512, 1024).ok());
    EXPECT_TRUE(image.status(0).zero);
    EXPECT_EQ(image.status(0).host_offset, std::nullopt);
    image.close();
  });
}

TEST(Write, CompressedDataDoesNotReplaceWhatIsThere) {
  run_in_main_loop([]() coroutine_fn {
    Image image(kMiB);
    Bytes data = text(4 * kCluster, 'c');
    const IoVector iov{std::span<std::byte>(data)};
    ASSERT_TRUE(image.node->co_pwrite(2 * kCluster, text(1, 'x')).ok());
    const auto refused = image.node->co_pwrite_compressed(0, iov);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().errnum(), EIO);
    EXPECT_FALSE(image.status(0).allocated) << "all or nothing";
    ASSERT_TRUE(image.node->co_pwrite_compressed(4 * kCluster, iov).ok());
    EXPECT_TRUE(image.status(4 * kCluster).compressed);
    EXPECT_EQ(image.node->co_pwrite_compressed(512, iov).error().errnum(), EINVAL);
    image.close();
  });
}

TEST(Write, NeighbouringStreamsAreWrittenTogether) {
  run_in_main_loop([]() coroutine_fn {
    Image image(kMiB);
    Bytes data = text(64 * kCluster, 'c');
    ASSERT_TRUE(image.node->co_pwrite_compressed(0, IoVector(std::span<std::byte>(data))).ok());
    size_t writes = 0;
    for (const LoggedIo& io : image.file().log()) writes += io.op == kOpWrite;
    EXPECT_LE(writes, 4u) << "refcount block, L2 table, L1 entry, and the data";
    image.close();
  });
}

TEST(Write, TicketsDecideWhereClustersGo) {
  run_in_main_loop([]() coroutine_fn {
    Image image(kMiB);
    PlacementOrder order;
    std::vector<PlacementOrder::Ticket> tickets;
    for (int i = 0; i < 4; ++i) tickets.emplace_back(order);
    CoGroup group;
    for (int i = 3; i >= 0; --i) {  // the last one comes first
      group.start([&, i]() coroutine_fn {
        WriteOptions options;
        options.placement = &tickets[i];
        EXPECT_TRUE(image.node->co_pwrite(i * kCluster, text(kCluster, 'a'), options).ok());
      });
    }
    group.wait_all();
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(*image.status(i * kCluster).host_offset + kCluster, *image.status((i + 1) * kCluster).host_offset);
    }
    image.close();
  });
}

TEST(Write, DiscardedSpaceGoesBackToTheHostOnceItIsSafe) {
  run_in_main_loop([]() coroutine_fn {
    OpenFlags flags{.writable = true};
    flags.discard_unmap = true;
    Image image(kMiB, {.cluster_size = kCluster}, {}, flags);
    ASSERT_TRUE(image.node->co_pwrite(0, text(8 * kCluster, 'a')).ok());
    ASSERT_TRUE(image.node->co_flush().ok());
    const uint64_t host = *image.status(0).host_offset;
    ASSERT_TRUE(image.node->co_pdiscard(0, 8 * kCluster).ok());
    ASSERT_TRUE(image.node->co_flush().ok());
    const auto& log = image.file().log();
    const auto punched = std::ranges::find(log, kOpDiscard, &LoggedIo::op);
    ASSERT_NE(punched, log.end());
    EXPECT_EQ(punched->offset, host);
    EXPECT_EQ(punched->bytes, 8 * kCluster);
    image.close();
  });
}

// The image's L2 table and all its data are shared with a snapshot, which must not see any of this.
TEST(Write, NothingThatASnapshotSharesIsChanged) {
  run_in_main_loop([]() coroutine_fn {
    const ImageBytes original({.snapshot = true});
    auto disk = std::make_shared<MemDisk>(original.bytes);
    const auto image = open_image(make_mem_node(disk), {});
    ASSERT_NE(image, nullptr);
    Bytes model = read_all(*image);
    auto put = [&](uint64_t offset, const Bytes& data) { std::ranges::copy(data, model.begin() + offset); };
    ASSERT_TRUE(image->co_pwrite(100, text(200, 'x')).ok());
    put(100, text(200, 'x'));
    ASSERT_TRUE(image->co_pwrite_zeroes(kCluster, kCluster).ok());
    put(kCluster, Bytes(kCluster));
    ASSERT_TRUE(image->co_pdiscard(2 * kCluster, kCluster).ok());
    put(2 * kCluster, Bytes(kCluster));
    ASSERT_TRUE(image->co_pwrite(kCluster + 5, text(2 * kCluster, 'y')).ok());
    put(kCluster + 5, text(2 * kCluster, 'y'));
    EXPECT_EQ(read_all(*image), model);
    ASSERT_TRUE(image->co_truncate(5 * kCluster).ok());
    expect_sound(*image);
    ASSERT_TRUE(image->co_close().ok());

    const uint64_t from = original.offset_of(ImageBytes::kL2), to = original.offset_of(ImageBytes::kSnapshotL1 + 1);
    EXPECT_TRUE(std::equal(original.bytes.begin() + from, original.bytes.begin() + to, disk->bytes.begin() + from));
  });
}

TEST(Write, AClusterThatIsATableIsNotWritten) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes damaged({});
    damaged.put64(damaged.l2_entry_at(3), damaged.offset_of(ImageBytes::kBlock) | kEntryCopied);
    auto disk = std::make_shared<MemDisk>(damaged.bytes);
    const auto image = open_image(make_mem_node(disk), {});
    ASSERT_NE(image, nullptr);
    EXPECT_EQ(image->co_pwrite(3 * kCluster, text(kCluster, 'x')).error().errnum(), EIO);
    EXPECT_TRUE(std::to_integer<int>(disk->bytes[79]) & kCorrupt)
        << "marked at once: the process may not live to close";
    EXPECT_FALSE(image->co_pwrite(0, text(1, 'x')).ok()) << "the image is not to be trusted";
    (void)image->co_close();
    EXPECT_TRUE(std::equal(damaged.bytes.begin() + kCluster, damaged.bytes.end(), disk->bytes.begin() + kCluster));
    EXPECT_TRUE(std::to_integer<int>(disk->bytes[79]) & kCorrupt);
  });
}

TEST(Write, AUsedClusterThatCountsAsFreeIsNotHandedOut) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes damaged({});
    damaged.set_refcount(ImageBytes::kL1, 0);
    auto disk = std::make_shared<MemDisk>(damaged.bytes);
    const auto image = open_image(make_mem_node(disk), {});
    ASSERT_NE(image, nullptr);
    EXPECT_FALSE(image->co_pwrite(20 * kCluster, text(kCluster, 'x')).ok());
    (void)image->co_close();
    const auto l1 = damaged.bytes.begin() + kCluster * ImageBytes::kL1;
    EXPECT_TRUE(std::equal(l1, l1 + kCluster, disk->bytes.begin() + kCluster * ImageBytes::kL1));
  });
}

TEST(Resize, OldBytesBehindTheEndDoNotComeBack) {
  run_in_main_loop([]() coroutine_fn {
    for (const bool version2 : {false, true}) {
      Image image(8 * kCluster, {.cluster_size = kCluster, .version2 = version2});
      ASSERT_TRUE(image.node->co_pwrite(0, text(8 * kCluster, 'a')).ok());
      ASSERT_TRUE(image.node->co_truncate(kCluster + 512).ok());
      ASSERT_TRUE(image.node->co_truncate(16 * kCluster).ok());
      const Bytes seen = read_all(*image.node);
      EXPECT_EQ(seen[kCluster + 511], std::byte{'a'});
      EXPECT_THAT(std::span(seen).subspan(kCluster + 512), testing::Each(std::byte{0}));
      image.close();
    }
  });
}

TEST(Resize, ALongerBackingFileDoesNotShowInNewSpace) {
  run_in_main_loop([]() coroutine_fn {
    for (const bool version2 : {false, true}) {
      const Bytes backing = text(8 * kCluster, 'b');
      Image image(kCluster + 512, {.cluster_size = kCluster, .version2 = version2, .backing = true}, backing);
      ASSERT_TRUE(image.node->co_truncate(10 * kCluster).ok());
      const Bytes seen = read_all(*image.node);
      EXPECT_THAT(std::span(seen).first(kCluster + 512), testing::Each(std::byte{'b'}));
      EXPECT_THAT(std::span(seen).subspan(kCluster + 512), testing::Each(std::byte{0}));
      image.close();
    }
  });
}

TEST(Resize, ShrinkingGivesSpaceBack) {
  run_in_main_loop([]() coroutine_fn {
    Image image(16 * kMiB, {.cluster_size = 512});
    ASSERT_TRUE(image.node->co_pwrite(0, text(2 * kMiB, 'a')).ok());
    ASSERT_TRUE(image.node->co_flush().ok());
    const size_t before = image.disk->bytes.size();
    ASSERT_TRUE(image.node->co_truncate(kMiB).ok());
    EXPECT_LT(image.disk->bytes.size(), before - 900 * kKiB);
    image.close();
  });
}

TEST(Resize, PreallocatedSpaceHasItsPlaceAndReadsAsZeros) {
  run_in_main_loop([]() coroutine_fn {
    for (const auto mode : {Preallocation::kMetadata, Preallocation::kFalloc, Preallocation::kFull}) {
      // Clusters that were used before are free in the middle of the file.
      Image image(kMiB + 512);
      ASSERT_TRUE(image.node->co_pwrite(0, text(kMiB + 512, 'a')).ok());
      ASSERT_TRUE(image.node->co_pwrite_zeroes(0, kMiB / 2, {.may_unmap = true}).ok());
      ASSERT_TRUE(image.node->co_flush().ok());
      ASSERT_TRUE(image.node->co_truncate(5 * kMiB, mode).ok());
      const Bytes seen = read_all(*image.node);
      EXPECT_TRUE(std::ranges::equal(std::span(seen).subspan(kMiB / 2, kMiB / 2 + 512), text(kMiB / 2 + 512, 'a')));
      EXPECT_TRUE(is_zero(std::span(seen).subspan(kMiB + 512)));
      for (uint64_t at = kMiB; at < 5 * kMiB; at += kCluster) {
        ASSERT_TRUE(image.status(at).data) << "no place for " << at;
        ASSERT_LE(*image.status(at).host_offset + kCluster, image.disk->bytes.size());
      }
      image.close();
    }
  });
}

TEST(Resize, RefusesWhatTheFormatCannotDo) {
  run_in_main_loop([]() coroutine_fn {
    Image image(kMiB);
    EXPECT_EQ(image.node->co_truncate(1000).error().errnum(), EINVAL);
    EXPECT_EQ(image.node->co_truncate(uint64_t{1} << 60).error().errnum(), EFBIG);
    EXPECT_EQ(image.node->co_truncate(kMiB / 2, Preallocation::kFull).error().errnum(), ENOTSUP);
    EXPECT_EQ(image.node->length(), kMiB);
    image.close();
  });
}

/// A short life of an image that touches every part of the write side. Each step may fail; `note` is told whether.
void live(BlockNode& image, const std::function<void(size_t step, bool ok)>& note) coroutine_fn {
  size_t step = 0;
  auto did = [&](const Result<void>& outcome) { note(step++, outcome.ok()); };
  Bytes compressible = text(6 * 512, 'c');
  ZeroOptions unmap;
  unmap.may_unmap = true;
  did(image.co_pwrite(700, text(20000, 'a')));
  did(image.co_pwrite_compressed(64 * 512, IoVector(std::span<std::byte>(compressible))));
  did(image.co_flush());
  did(image.co_pwrite(65 * 512 + 3, text(300, 'b')));
  did(image.co_pwrite_zeroes(512, 4000));
  did(image.co_pwrite_zeroes(5120, 6000, unmap));
  did(image.co_pdiscard(10240, 4096));
  did(image.co_pwrite(300, text(40000, 'd')));
  did(image.co_truncate(3 * kMiB));
  did(image.co_truncate(3 * kMiB + 60 * kKiB, Preallocation::kMetadata));
  did(image.co_truncate(3 * kMiB + 90 * kKiB, Preallocation::kFull));
  did(image.co_pwrite(kMiB + 100, text(30000, 'e')));
  did(image.co_flush());
  did(image.co_truncate(30 * 512));
  did(image.co_flush());
}

// Each I/O of a short life fails once. The steps that report no failure have taken effect, the image stays usable, and
// is sound when it is closed; clusters may leak.
TEST(WriteFaults, AFailedIoNeverDamagesTheImage) {
  run_in_main_loop([]() coroutine_fn {
    const ImageKind kind{.cluster_size = 512, .refcount_bits = 64};  // small tables: all of them have to grow
    Bytes clean;
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(testing::Message() << "I/O number " << nth << " fails");
      Image image(kMiB, kind);
      ASSERT_NE(image.node, nullptr);
      image.file().fail_nth_io(nth, ENOSPC);
      bool all_ok = true;
      live(*image.node, [&](size_t, bool ok) { all_ok = all_ok && ok; });
      const bool fired = image.file().fired();
      image.file().heal();
      if (!fired) {
        EXPECT_TRUE(all_ok);
        EXPECT_GT(nth, 50u);
        ASSERT_TRUE(image.node->co_close().ok());
        return;
      }
      // Everything works again.
      Bytes data = text(5000, 'z');
      auto written = image.node->co_pwrite(777, data);
      ASSERT_TRUE(written.ok()) << written.error().message();
      ASSERT_TRUE(image.node->co_close().ok());

      const auto again = open_image(make_mem_node(image.disk), {});
      ASSERT_NE(again, nullptr);
      expect_sound(*again, /*leaks_allowed=*/true);
      Bytes seen(data.size());
      ASSERT_TRUE(again->co_pread(777, seen).ok());
      EXPECT_EQ(seen, data);
      ASSERT_TRUE(again->co_close().ok());
    }
  });
}

// The disk is gone from some I/O on, and so is the process: what is in the file by then is sound.
TEST(WriteFaults, ADiskThatStopsLeavesASoundImage) {
  run_in_main_loop([]() coroutine_fn {
    const ImageKind kind{.cluster_size = 512, .refcount_bits = 64};
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(testing::Message() << "the disk stops at I/O number " << nth);
      Image image(kMiB, kind);
      ASSERT_NE(image.node, nullptr);
      image.file().fail_from_nth_io(nth, EIO);
      live(*image.node, [](size_t, bool) {});
      const bool fired = image.file().fired();
      (void)image.node->co_close();
      const auto again = open_image(make_mem_node(image.disk), {});
      ASSERT_NE(again, nullptr);
      expect_sound(*again, /*leaks_allowed=*/true);
      ASSERT_TRUE(again->co_close().ok());
      if (!fired) return;
    }
  });
}

}  // namespace
}  // namespace coimg::qcow2
