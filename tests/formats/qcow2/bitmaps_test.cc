// Dirty bitmaps of an image: the operations, what is recorded, and what happens when I/O fails.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <random>

#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "formats/qcow2/bitmap.h"
#include "tests/formats/qcow2/bitmap_fixture.h"

namespace coimg::qcow2 {
namespace {

using Bytes = std::vector<std::byte>;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kCluster = 4096;
constexpr uint64_t kSize = 64 * kCluster;

std::shared_ptr<MemDisk> new_disk(const ImageKind& kind = {.cluster_size = kCluster}) coroutine_fn {
  return create_image(kind, kSize);
}

/// Closes and opens again.
void reopen(std::unique_ptr<BlockNode>& image, const std::shared_ptr<MemDisk>& disk,
            OpenFlags flags = {.writable = true}) coroutine_fn {
  const auto closed = image->co_close();
  ASSERT_TRUE(closed.ok()) << closed.error().message();
  image = open_image(make_mem_node(disk), {}, flags);
  ASSERT_NE(image, nullptr);
}

std::vector<uint64_t> dirty_list(BlockNode& image, const std::string& name) coroutine_fn {
  std::vector<uint64_t> list;
  const std::vector<bool> dirty = dirty_granules(image, name);
  for (uint64_t i = 0; i < dirty.size(); ++i) {
    if (dirty[i]) list.push_back(i);
  }
  return list;
}

/// The image as somebody would find it if this process died now.
std::unique_ptr<BlockNode> after_death(const std::shared_ptr<MemDisk>& disk) coroutine_fn {
  return open_image(make_mem_node(std::make_shared<MemDisk>(disk->bytes)), {});
}

// --- operations ------------------------------------------------------------------------------------------------------

TEST(Bitmaps, AreAddedChangedAndRemoved) {
  run_in_main_loop([]() coroutine_fn {
    const auto disk = new_disk();
    auto image = open_image(make_mem_node(disk), {});
    ASSERT_TRUE(image->co_add_bitmap({.name = "a"}).ok());
    ASSERT_TRUE(image->co_add_bitmap({.name = "b", .granularity = 512, .recording = false}).ok());
    reopen(image, disk);
    EXPECT_EQ(find_bitmap(*image, "a")->granularity, 4096u);
    EXPECT_TRUE(find_bitmap(*image, "a")->recording);
    EXPECT_FALSE(find_bitmap(*image, "b")->recording);
    expect_sound(*image);

    ASSERT_TRUE(image->co_pwrite(2 * kCluster + 100, Bytes(kCluster)).ok());
    EXPECT_THAT(dirty_list(*image, "a"), ElementsAre(2, 3));
    ASSERT_TRUE(image->co_merge_bitmap("b", *image, "a").ok());
    ASSERT_TRUE(image->co_set_bitmap_recording("a", false).ok());
    ASSERT_TRUE(image->co_set_bitmap_recording("b", true).ok());
    ASSERT_TRUE(image->co_pwrite(0, Bytes(512)).ok());
    reopen(image, disk);
    EXPECT_THAT(dirty_list(*image, "a"), ElementsAre(2, 3));
    EXPECT_THAT(dirty_list(*image, "b"),
                ElementsAre(0, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31));
    expect_sound(*image);

    ASSERT_TRUE(image->co_clear_bitmap("b").ok());
    ASSERT_TRUE(image->co_remove_bitmap("a").ok());
    reopen(image, disk);
    EXPECT_FALSE(find_bitmap(*image, "a"));
    EXPECT_THAT(dirty_list(*image, "b"), ElementsAre());
    expect_sound(*image);
    ASSERT_TRUE(image->co_remove_bitmap("b").ok());
    reopen(image, disk);
    EXPECT_TRUE(image->driver().bitmaps().empty());
    expect_sound(*image);
    ASSERT_TRUE(image->co_close().ok());
  });
}

TEST(Bitmaps, RefuseWhatCannotBe) {
  run_in_main_loop([]() coroutine_fn {
    const auto image = open_image(make_mem_node(new_disk()), {});
    const auto message = [](const Result<void>& result) { return result.ok() ? "" : result.error().message(); };
    EXPECT_THAT(message(image->co_add_bitmap({.name = ""})), HasSubstr("empty"));
    EXPECT_THAT(message(image->co_add_bitmap({.name = std::string(1024, 'x')})), HasSubstr("Name length"));
    for (const uint64_t granularity : {uint64_t{256}, uint64_t{1000}, 4 * kGiB}) {
      EXPECT_THAT(message(image->co_add_bitmap({.name = "x", .granularity = granularity})), HasSubstr("power of 2"));
    }
    ASSERT_TRUE(image->co_add_bitmap({.name = "x", .granularity = 2 * kGiB}).ok());
    EXPECT_EQ(image->co_add_bitmap({.name = "x"}).error().errnum(), EEXIST);
    EXPECT_EQ(image->co_remove_bitmap("y").error().errnum(), ENOENT);
    EXPECT_EQ(image->co_merge_bitmap("x", *image, "y").error().errnum(), ENOENT);
    ASSERT_TRUE(image->co_merge_bitmap("x", *image, "x").ok());
    ASSERT_TRUE(image->co_close().ok());

    const auto old = open_image(make_mem_node(new_disk({.cluster_size = kCluster, .version2 = true})), {});
    EXPECT_FALSE(old->driver().supports_bitmaps());
    EXPECT_THAT(message(old->co_add_bitmap({.name = "x"})), HasSubstr("v2"));
    ASSERT_TRUE(old->co_close().ok());

    const auto huge = open_image(make_mem_node(create_image({.cluster_size = 65536}, 8 * kTiB)), {});
    EXPECT_THAT(message(huge->co_add_bitmap({.name = "x", .granularity = 1024})), HasSubstr("Too much space"));
    ASSERT_TRUE(huge->co_close().ok());
  });
}

TEST(Bitmaps, MergeFromAnotherImageWithOtherGranularity) {
  run_in_main_loop([]() coroutine_fn {
    const auto source = open_image(make_mem_node(new_disk({.cluster_size = 512})), {});
    const auto target = open_image(make_mem_node(new_disk()), {});
    ASSERT_TRUE(source->co_add_bitmap({.name = "fine", .granularity = 512}).ok());
    ASSERT_TRUE(target->co_add_bitmap({.name = "coarse", .granularity = 4 * kCluster}).ok());
    ASSERT_TRUE(source->co_pwrite(4 * kCluster - 512, Bytes(1024)).ok());
    ASSERT_TRUE(target->co_merge_bitmap("coarse", *source, "fine").ok());
    EXPECT_THAT(dirty_list(*target, "coarse"), ElementsAre(0, 1));
    ASSERT_TRUE(source->co_truncate(kSize / 2).ok());
    EXPECT_THAT(target->co_merge_bitmap("coarse", *source, "fine").error().message(), HasSubstr("different sizes"));
    EXPECT_EQ(target->co_merge_bitmap("coarse", *source, "none").error().errnum(), ENOENT);
    ASSERT_TRUE(source->co_close().ok());
    ASSERT_TRUE(target->co_close().ok());
  });
}

TEST(Bitmaps, FullClustersOfOnesTakeNoSpace) {
  run_in_main_loop([]() coroutine_fn {
    constexpr uint64_t kBytes = 2 * 512 * 8 * 512;  // two clusters of bits
    const auto disk = create_image({.cluster_size = 512}, kBytes);
    auto image = open_image(make_mem_node(disk), {});
    ASSERT_TRUE(image->co_add_bitmap({.name = "a", .granularity = 512}).ok());
    ASSERT_TRUE(image->co_pdiscard(0, kBytes).ok());
    const uint64_t before = disk->bytes.size();
    reopen(image, disk);
    EXPECT_LE(disk->bytes.size() - before, 4 * 512u) << "a table and a directory";
    EXPECT_EQ(dirty_granules(*image, "a"), std::vector<bool>(kBytes / 512, true));
    expect_sound(*image);
    ASSERT_TRUE(image->co_close().ok());
  });
}

// --- recording -------------------------------------------------------------------------------------------------------

TEST(Bitmaps, AnImageThatIsNotWrittenStaysAsItIs) {
  run_in_main_loop([]() coroutine_fn {
    const auto disk = new_disk();
    auto image = open_image(make_mem_node(disk), {});
    ASSERT_TRUE(image->co_add_bitmap({.name = "a"}).ok());
    reopen(image, disk);
    const Bytes before = disk->bytes;
    reopen(image, disk);
    EXPECT_EQ(disk->bytes, before);
    ASSERT_TRUE(image->co_set_bitmap_recording("a", false).ok());
    reopen(image, disk);
    ASSERT_TRUE(image->co_pwrite(0, Bytes(512)).ok());
    const auto other = after_death(disk);
    EXPECT_FALSE(find_bitmap(*other, "a")->inconsistent) << "it does not record";
    ASSERT_TRUE(other->co_close().ok());
    ASSERT_TRUE(image->co_close().ok());
  });
}

TEST(Bitmaps, AreInUseFromTheFirstChangeOn) {
  run_in_main_loop([]() coroutine_fn {
    const std::pair<const char*, std::function<Result<void>(BlockNode&)>> changes[] = {
        {"write", [](BlockNode& image) coroutine_fn { return image.co_pwrite(0, Bytes(512)); }},
        {"zeroes", [](BlockNode& image) coroutine_fn { return image.co_pwrite_zeroes(0, kCluster); }},
        {"discard", [](BlockNode& image) coroutine_fn { return image.co_pdiscard(0, kCluster); }},
        {"resize", [](BlockNode& image) coroutine_fn { return image.co_truncate(2 * kSize); }},
        {"compressed",
         [](BlockNode& image) coroutine_fn {
           Bytes data(kCluster);
           return image.co_pwrite_compressed(0, IoVector(std::span<std::byte>(data)));
         }},
    };
    for (const auto& [name, change] : changes) {
      SCOPED_TRACE(name);
      const auto disk = new_disk();
      auto image = open_image(make_mem_node(disk), {});
      ASSERT_TRUE(image->co_add_bitmap({.name = "a"}).ok());
      reopen(image, disk);
      ASSERT_TRUE(change(*image).ok());
      auto other = after_death(disk);
      EXPECT_TRUE(find_bitmap(*other, "a")->inconsistent);
      ASSERT_TRUE(other->co_close().ok());
      reopen(image, disk);
      EXPECT_FALSE(find_bitmap(*image, "a")->inconsistent);
      if (std::string_view(name) != "resize") {
        EXPECT_THAT(dirty_list(*image, "a"), ElementsAre(0));
      }
      expect_sound(*image);
      ASSERT_TRUE(image->co_close().ok());
    }
  });
}

TEST(Bitmaps, OneThatAResizeLeftInUseIsRemovedAsAWhole) {
  run_in_main_loop([]() coroutine_fn {
    const auto disk = create_image({.cluster_size = 512}, kSize);
    auto image = open_image(make_mem_node(disk), {});
    ASSERT_TRUE(image->co_add_bitmap({.name = "a", .granularity = 512}).ok());
    ASSERT_TRUE(image->co_pwrite(0, Bytes(512)).ok());
    reopen(image, disk);
    ASSERT_TRUE(image->co_truncate(100 * kSize).ok());
    const auto dead = std::make_shared<MemDisk>(disk->bytes);
    ASSERT_TRUE(image->co_close().ok());

    image = open_image(make_mem_node(dead), {});
    ASSERT_TRUE(image->co_remove_bitmap("a").ok());
    reopen(image, dead);
    expect_sound(*image);
    ASSERT_TRUE(image->co_close().ok());
  });
}

TEST(Bitmaps, AnInconsistentOneCanOnlyBeRemoved) {
  run_in_main_loop([]() coroutine_fn {
    const auto disk = new_disk();
    auto image = open_image(make_mem_node(disk), {});
    ASSERT_TRUE(image->co_add_bitmap({.name = "a"}).ok());
    reopen(image, disk);
    ASSERT_TRUE(image->co_pwrite(0, Bytes(512)).ok());
    const auto dead = std::make_shared<MemDisk>(disk->bytes);
    ASSERT_TRUE(image->co_close().ok());

    image = open_image(make_mem_node(dead), {});
    ASSERT_TRUE(image->co_add_bitmap({.name = "b"}).ok());
    for (const auto& refused : {image->co_clear_bitmap("a"), image->co_set_bitmap_recording("a", false),
                                image->co_merge_bitmap("a", *image, "b"), image->co_merge_bitmap("b", *image, "a"),
                                image->co_truncate(512)}) {
      ASSERT_FALSE(refused.ok());
      EXPECT_THAT(refused.error().message(), HasSubstr("'a' is inconsistent"));
    }
    ASSERT_TRUE(image->co_pwrite(0, Bytes(512)).ok());
    reopen(image, dead);
    EXPECT_TRUE(find_bitmap(*image, "a")->inconsistent);
    EXPECT_THAT(dirty_list(*image, "b"), ElementsAre(0));
    ASSERT_TRUE(image->co_remove_bitmap("a").ok());
    reopen(image, dead);
    EXPECT_FALSE(find_bitmap(*image, "a"));
    auto result = image->co_check({.repair = RepairMode::kLeaks});
    ASSERT_TRUE(result.ok());
    expect_sound(*image);
    ASSERT_TRUE(image->co_close().ok());
  });
}

/// Where the first bitmap's table is, from the header's extension and the directory.
uint64_t table_offset(const MemDisk& disk) {
  const auto load = [&](uint64_t at) {
    be64 value;
    std::memcpy(static_cast<void*>(&value), disk.bytes.data() + at, sizeof value);
    return uint64_t{value};
  };
  return load(load(*find_bitmaps_extension(std::span(disk.bytes).first(kCluster)) + 16));
}

TEST(Bitmaps, ADamagedTableMakesItsBitmapInconsistent) {
  run_in_main_loop([]() coroutine_fn {
    const auto disk = new_disk();
    auto image = open_image(make_mem_node(disk), {});
    ASSERT_TRUE(image->co_add_bitmap({.name = "a"}).ok());
    ASSERT_TRUE(image->co_close().ok());
    const uint64_t table = table_offset(*disk);
    for (const uint64_t bad : {uint64_t{2}, uint64_t{1} << 60, uint64_t{0x1200}, kCluster | 1}) {
      const be64 stored(bad);
      std::memcpy(disk->bytes.data() + table, &stored, sizeof stored);
      image = open_image(make_mem_node(disk), {}, {.writable = false});
      EXPECT_EQ(image->co_visit_bitmap("a", [](uint64_t, uint64_t) {}).error().errnum(), EINVAL);
      EXPECT_EQ(image->co_check({})->corruptions, 1u);
      ASSERT_TRUE(image->co_close().ok());
      image = open_image(make_mem_node(disk), {});
      EXPECT_TRUE(find_bitmap(*image, "a")->inconsistent);
      ASSERT_TRUE(image->co_close().ok());
    }
  });
}

/// What bitmap "a" has after `inflict` and a repair, which has to leave nothing to be found; empty when it is not the
/// only consistent bitmap.
std::vector<uint64_t> dirty_after_repair(const std::function<void(MemDisk&, uint64_t entry, uint64_t table)>& inflict)
    coroutine_fn {
  const auto disk = new_disk();
  auto image = open_image(make_mem_node(disk), {});
  EXPECT_TRUE(image->co_add_bitmap({.name = "a", .granularity = 8 * kCluster}).ok());
  EXPECT_TRUE(image->co_pwrite(0, Bytes(512)).ok());
  EXPECT_TRUE(image->co_close().ok());
  be64 directory;
  std::memcpy(static_cast<void*>(&directory), disk->bytes.data() + *find_bitmaps_extension(disk->bytes) + 16,
              sizeof directory);
  inflict(*disk, directory, table_offset(*disk));

  image = open_image(make_mem_node(disk), {}, {.writable = true});
  EXPECT_TRUE(find_bitmap(*image, "a")->inconsistent) << "what is lost must not count as clean";
  EXPECT_TRUE(image->co_close().ok());
  image = open_image(make_mem_node(disk), {}, {.writable = true, .check = true});
  const uint64_t corruptions = image->co_check({})->corruptions;
  EXPECT_GE(corruptions, 1u);
  const auto repaired = image->co_check({.repair = RepairMode::kAll});
  EXPECT_TRUE(repaired.ok());
  if (repaired.ok()) {
    EXPECT_EQ(repaired->corruptions, 0u);
    EXPECT_EQ(repaired->corruptions_fixed, corruptions);
  }
  expect_sound(*image);
  EXPECT_TRUE(image->co_close().ok());
  image = open_image(make_mem_node(disk), {});
  std::vector<uint64_t> dirty;
  if (!find_bitmap(*image, "a")->inconsistent) dirty = dirty_list(*image, "a");
  EXPECT_TRUE(image->co_close().ok());
  return dirty;
}

TEST(Bitmaps, WhatOfThemIsLostIsDirtyAfterARepair) {
  run_in_main_loop([]() coroutine_fn {
    const auto put = [](MemDisk& disk, uint64_t at, uint64_t value) {
      const be64 stored(value);
      std::memcpy(disk.bytes.data() + at, &stored, sizeof stored);
    };
    const auto all = ElementsAre(0, 1, 2, 3, 4, 5, 6, 7);
    for (const uint64_t bad : {uint64_t{2}, uint64_t{0x1200}, uint64_t{1} << 40}) {
      EXPECT_THAT(dirty_after_repair([&](MemDisk& disk, uint64_t, uint64_t table) { put(disk, table, bad); }), all);
    }
    EXPECT_THAT(dirty_after_repair([&](MemDisk& disk, uint64_t entry, uint64_t) { put(disk, entry, 1 << 30); }), all);
    EXPECT_THAT(dirty_after_repair([&](MemDisk& disk, uint64_t entry, uint64_t) {
                  put(disk, entry, align_up(disk.bytes.size(), kCluster));
                }),
                all)
        << "a short table right behind the end of the file";
    EXPECT_THAT(dirty_after_repair([&](MemDisk& disk, uint64_t entry, uint64_t) {
                  put(disk, entry, 1 << 30);
                  be64 first_block;
                  std::memcpy(static_cast<void*>(&first_block), disk.bytes.data() + kCluster, sizeof first_block);
                  disk.bytes[first_block + 1] = std::byte{0};  // the header's refcount: all of them are made anew
                }),
                all);
  });
}

// Each of them could be right, and all may be one range of the file.
TEST(Bitmaps, MoreTablesThanAreReasonableAreRefusedByCheck) {
  run_in_main_loop([]() coroutine_fn {
    constexpr uint32_t kEntries = kMaxBitmapBytes / 512;
    const uint64_t table_bytes = kEntries * sizeof(be64);
    for (const bool too_many : {false, true}) {
      auto disk = create_image({.cluster_size = 512}, kMiB);
      Header header = parse_header(std::vector(disk->bytes), {}).value();
      const uint64_t first = align_up(disk->bytes.size(), 512);
      std::vector<BitmapEntry> bitmaps;
      for (uint64_t i = 0; i < (too_many ? 9 : 1); ++i) {
        bitmaps.push_back({.table_offset = HostOffset(first + i * 512),
                           .table_entries = kEntries,
                           .in_use = true,
                           .name = fmt::format("{}", i)});
      }
      const std::vector<std::byte> directory = encode_bitmap_directory(bitmaps).value();
      const uint64_t directory_at = first + table_bytes + bitmaps.size() * 512;
      header.bitmaps = BitmapsExtension{.count = static_cast<uint32_t>(bitmaps.size()),
                                        .directory_bytes = directory.size(),
                                        .directory_offset = HostOffset(directory_at)};
      header.autoclear_features |= kBitmapsValid;
      const auto stored = encode_header(header).value();
      disk->bytes.resize(align_up(directory_at + directory.size(), 512));
      std::ranges::copy(stored, disk->bytes.begin());
      std::ranges::copy(directory, disk->bytes.begin() + static_cast<ptrdiff_t>(directory_at));

      const auto image = open_image(make_mem_node(disk), {});
      ASSERT_NE(image, nullptr);
      const auto checked = image->co_check({});
      EXPECT_EQ(checked.ok() ? 0 : checked.error().errnum(), too_many ? EFBIG : 0);
      EXPECT_TRUE(image->co_close().ok());
    }
  });
}

TEST(Bitmaps, RecordNoChangeOfTheSize) {
  run_in_main_loop([]() coroutine_fn {
    const auto disk = new_disk({.cluster_size = 512});
    auto image = open_image(make_mem_node(disk), {});
    ASSERT_TRUE(image->co_pwrite(0, Bytes(kSize)).ok());
    ASSERT_TRUE(image->co_add_bitmap({.name = "a", .granularity = 4096}).ok());
    ASSERT_TRUE(image->co_pwrite(0, Bytes(512)).ok());
    for (const uint64_t size : {uint64_t{5 * 4096 + 512}, 2 * kSize, uint64_t{7 * 4096 + 1536}, uint64_t{3 * 4096}}) {
      SCOPED_TRACE(size);
      reopen(image, disk);
      ASSERT_TRUE(image->co_truncate(size).ok());
      EXPECT_THAT(dirty_list(*image, "a"), ElementsAre(0));
    }
    expect_sound(*image);
    ASSERT_TRUE(image->co_close().ok());
  });
}

TEST(Bitmaps, FollowTheSizeOfTheDisk) {
  run_in_main_loop([]() coroutine_fn {
    const auto disk = new_disk({.cluster_size = 512});
    auto image = open_image(make_mem_node(disk), {});
    ASSERT_TRUE(image->co_add_bitmap({.name = "a", .granularity = 4096}).ok());
    ASSERT_TRUE(image->co_add_bitmap({.name = "off", .granularity = 4096, .recording = false}).ok());
    ASSERT_TRUE(image->co_pwrite(0, Bytes(kSize)).ok());
    ASSERT_TRUE(image->co_merge_bitmap("off", *image, "a").ok());
    reopen(image, disk);
    ASSERT_TRUE(image->co_truncate(5 * 4096 + 512).ok());
    reopen(image, disk);
    ASSERT_TRUE(image->co_truncate(200 * kSize).ok());
    reopen(image, disk);
    EXPECT_THAT(dirty_list(*image, "a"), ElementsAre(0, 1, 2, 3, 4, 5));
    EXPECT_THAT(dirty_list(*image, "off"), ElementsAre(0, 1, 2, 3, 4, 5));
    expect_sound(*image);
    EXPECT_EQ(image->co_truncate(0).error().errnum(), ENOTSUP);
    ASSERT_TRUE(image->co_close().ok());
  });
}

class BitmapModel : public testing::TestWithParam<ImageKind> {};

TEST_P(BitmapModel, EveryChangedGranuleIsDirty) {
  const char* given = std::getenv("COIMG_TEST_SEED");
  const uint64_t seed = given ? std::strtoull(given, nullptr, 0) : std::random_device()();
  SCOPED_TRACE(testing::Message() << "COIMG_TEST_SEED=" << seed);
  run_in_main_loop([&]() coroutine_fn {
    const ImageKind kind = GetParam();
    std::mt19937_64 random(seed);
    const auto pick = [&](uint64_t limit) { return random() % limit; };
    const uint64_t size = kind.cluster_size * 40 + 512;
    const auto disk = create_image(kind, size);
    const Bytes backing = kind.backing ? pattern(size / 2, seed) : Bytes();
    auto image = open_image(make_mem_node(disk), backing);
    const std::pair<const char*, uint64_t> bitmaps[] = {{"fine", 512}, {"coarse", 16 * kKiB}};
    for (const auto& [name, granularity] : bitmaps) {
      ASSERT_TRUE(image->co_add_bitmap({.name = name, .granularity = granularity}).ok());
    }
    ASSERT_TRUE(image->co_add_bitmap({.name = "off", .recording = false}).ok());
    Bytes before = read_all(*image);
    std::vector<bool> untouched(size / 512, true);  // nothing near it was written

    for (int step = 0; step < 120 && !HasFailure(); ++step) {
      const uint64_t offset = pick(size), bytes = 1 + pick(std::min(size - offset, kind.cluster_size * 3));
      const uint64_t cluster = align_down(offset, kind.cluster_size);
      const uint64_t end = std::min<uint64_t>(align_up(offset + bytes, kind.cluster_size), size);
      std::fill(untouched.begin() + static_cast<ptrdiff_t>(cluster / 512),
                untouched.begin() + static_cast<ptrdiff_t>(end / 512), false);
      switch (pick(5)) {
        case 0 ... 1:
          ASSERT_TRUE(image->co_pwrite(offset, pattern(bytes, random())).ok());
          break;
        case 2:
          ASSERT_TRUE(image->co_pwrite_zeroes(offset, bytes, {.may_unmap = pick(2) == 0}).ok());
          break;
        case 3:
          ASSERT_TRUE(image->co_pdiscard(offset, bytes).ok());
          break;
        default: {
          Bytes data(end - cluster, std::byte(pick(256)));
          static_cast<void>(image->co_pwrite_compressed(cluster, IoVector(std::span<std::byte>(data))));
        }
      }
      if (step % 20 != 19) continue;
      ASSERT_TRUE(image->co_close().ok());
      image = open_image(make_mem_node(disk), backing);
      const Bytes after = read_all(*image);
      for (const auto& [name, granularity] : bitmaps) {
        EXPECT_EQ(missed_granule(dirty_granules(*image, name), granularity, before, after), std::nullopt) << name;
      }
      const std::vector<bool> fine = dirty_granules(*image, "fine");
      for (size_t i = 0; i < untouched.size(); ++i) ASSERT_FALSE(fine[i] && untouched[i]) << "granule " << i;
      EXPECT_THAT(dirty_list(*image, "off"), ElementsAre());
      expect_sound(*image);
      if (pick(3) != 0) continue;
      for (const auto& [name, granularity] : bitmaps) ASSERT_TRUE(image->co_clear_bitmap(name).ok());
      before = after;
      untouched.assign(untouched.size(), true);
    }
    ASSERT_TRUE(image->co_close().ok());
  });
}

INSTANTIATE_TEST_SUITE_P(Kinds, BitmapModel,
                         testing::Values(ImageKind{.cluster_size = 512},
                                         ImageKind{.cluster_size = 4096, .backing = true},
                                         ImageKind{.cluster_size = 16384, .extended_l2 = true},
                                         ImageKind{.cluster_size = 65536, .refcount_bits = 1}));

// --- failures --------------------------------------------------------------------------------------------------------

/// A disk with a bitmap "a" that records and has a dirty granule, and "off" that does not.
std::shared_ptr<MemDisk> disk_with_bitmaps() coroutine_fn {
  const auto disk = new_disk();
  const auto image = open_image(make_mem_node(disk), {});
  EXPECT_TRUE(image->co_add_bitmap({.name = "a"}).ok());
  EXPECT_TRUE(image->co_add_bitmap({.name = "off", .granularity = 512, .recording = false}).ok());
  EXPECT_TRUE(image->co_pwrite(9 * kCluster, pattern(kCluster)).ok());
  EXPECT_TRUE(image->co_merge_bitmap("off", *image, "a").ok());
  EXPECT_TRUE(image->co_close().ok());
  return disk;
}

TEST(Bitmaps, AFailedStoreGivesBackWhatItTook) {
  run_in_main_loop([]() coroutine_fn {
    const auto disk = disk_with_bitmaps();
    auto image = open_image(make_fault_node(disk), {});
    ASSERT_TRUE(image->co_pwrite(0, pattern(kCluster)).ok());
    ASSERT_TRUE(image->co_flush().ok());
    fault_driver(*image->file()).fail_range(disk->bytes.size(), kGiB, ENOSPC, kOpWrite);
    EXPECT_EQ(image->co_close().error().errnum(), ENOSPC);
    image = open_image(make_mem_node(disk), {});
    EXPECT_TRUE(find_bitmap(*image, "a")->inconsistent);
    EXPECT_FALSE(find_bitmap(*image, "off")->inconsistent);
    expect_sound(*image);
    ASSERT_TRUE(image->co_close().ok());
  });
}

struct Session {
  const char* name;
  std::function<void(BlockNode&)> run;  ///< what is done between opening and closing

  friend std::ostream& operator<<(std::ostream& out, const Session& session) { return out << session.name; }
};

class FailingBitmapIo : public testing::TestWithParam<Session> {};

TEST_P(FailingBitmapIo, NeverLeavesABitmapThatIsWrong) {
  run_in_main_loop([]() coroutine_fn {
    const Bytes start = disk_with_bitmaps()->bytes;
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(testing::Message() << "I/O " << nth);
      const auto disk = std::make_shared<MemDisk>(start);
      auto image = open_image(make_fault_node(disk), {});
      const Bytes before = read_all(*image);
      FaultDriver& file = fault_driver(*image->file());
      file.fail_nth_io(nth, nth % 2 ? EIO : ENOSPC);
      GetParam().run(*image);
      const Result<void> closed = image->co_close();
      const bool fired = file.fired();
      EXPECT_TRUE(fired || closed.ok());

      image = open_image(make_mem_node(disk), {});
      ASSERT_NE(image, nullptr);
      expect_sound(*image, /*leaks_allowed=*/fired);
      const Bytes after = read_all(*image);
      const auto bitmap = find_bitmap(*image, "a");
      if (bitmap && bitmap->recording && !bitmap->inconsistent && before.size() == after.size()) {
        EXPECT_EQ(missed_granule(dirty_granules(*image, "a"), bitmap->granularity, before, after), std::nullopt);
      }
      EXPECT_TRUE(fired || !bitmap || !bitmap->inconsistent);
      ASSERT_TRUE(image->co_close().ok());
      if (!fired) {
        EXPECT_GT(nth, 7u);
        return;
      }
      if (HasFailure()) return;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Sessions, FailingBitmapIo,
                         testing::Values(Session{"write",
                                                 [](BlockNode& image) coroutine_fn {
                                                   static_cast<void>(image.co_pwrite(0, pattern(kCluster * 2 + 7)));
                                                   static_cast<void>(image.co_pwrite(20 * kCluster, pattern(512)));
                                                 }},
                                         Session{"add",
                                                 [](BlockNode& image) coroutine_fn {
                                                   static_cast<void>(image.co_add_bitmap({.name = "new"}));
                                                   static_cast<void>(image.co_pwrite(0, pattern(kCluster)));
                                                 }},
                                         Session{"merge",
                                                 [](BlockNode& image) coroutine_fn {
                                                   static_cast<void>(image.co_clear_bitmap("off"));
                                                   static_cast<void>(image.co_merge_bitmap("off", image, "a"));
                                                   static_cast<void>(image.co_pwrite(0, pattern(kCluster)));
                                                 }},
                                         Session{"remove",
                                                 [](BlockNode& image) coroutine_fn {
                                                   static_cast<void>(image.co_pwrite(0, pattern(kCluster)));
                                                   static_cast<void>(image.co_remove_bitmap("off"));
                                                 }},
                                         Session{"remove_all",
                                                 [](BlockNode& image) coroutine_fn {
                                                   static_cast<void>(image.co_remove_bitmap("off"));
                                                   static_cast<void>(image.co_remove_bitmap("a"));
                                                 }},
                                         Session{"shrink",
                                                 [](BlockNode& image) coroutine_fn {
                                                   static_cast<void>(image.co_clear_bitmap("a"));
                                                   static_cast<void>(image.co_truncate(kSize / 8));
                                                 }},
                                         Session{"resize",
                                                 [](BlockNode& image) coroutine_fn {
                                                   static_cast<void>(image.co_truncate(kSize / 2));
                                                   static_cast<void>(image.co_truncate(kSize));
                                                   static_cast<void>(image.co_pwrite(0, pattern(kCluster)));
                                                 }}),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace coimg::qcow2
