// Taking, applying, deleting and showing snapshots: rules that other tests do not see, and each I/O failing once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "tests/formats/qcow2/image_fixture.h"

namespace coimg::qcow2 {
namespace {

using Bytes = std::vector<std::byte>;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kCluster = 4096;
constexpr uint64_t kSize = 40 * kCluster;

Bytes text(uint64_t bytes, char letter) { return {bytes, std::byte(letter)}; }

SnapshotSelector named(const std::string& name) { return {.id = {}, .name = name}; }

std::vector<std::string> ids(BlockNode& image) coroutine_fn {
  std::vector<std::string> result;
  const auto info = image.co_info();
  for (const SnapshotInfo& snapshot : info->snapshots) result.push_back(snapshot.id + "=" + snapshot.name);
  return result;
}

/// A disk with data, a compressed cluster and a zero cluster, of which a snapshot "old" was taken, and written since.
std::shared_ptr<MemDisk> image_with_snapshot() coroutine_fn {
  auto disk = create_image({.cluster_size = kCluster}, kSize);
  const auto image = open_image(make_mem_node(disk), {});
  EXPECT_TRUE(image->co_pwrite(0, text(3 * kCluster, 'a')).ok());
  Bytes packed = text(kCluster, 'c');
  EXPECT_TRUE(image->co_pwrite_compressed(8 * kCluster, IoVector(std::span<std::byte>(packed))).ok());
  EXPECT_TRUE(image->co_pwrite_zeroes(10 * kCluster, kCluster).ok());
  EXPECT_TRUE(image->co_create_snapshot("old").ok());
  EXPECT_TRUE(image->co_pwrite(kCluster, text(kCluster, 'b')).ok());
  EXPECT_TRUE(image->co_pwrite(20 * kCluster, text(kCluster, 'd')).ok());
  EXPECT_TRUE(image->co_close().ok());
  return disk;
}

TEST(SnapshotChange, IdsAreOneHigherThanTheHighest) {
  run_in_main_loop([]() coroutine_fn {
    const auto image = open_image(make_mem_node(create_image({.cluster_size = kCluster}, kSize)), {});
    for (const char* name : {"a", "b", "a"}) ASSERT_TRUE(image->co_create_snapshot(name).ok());
    EXPECT_THAT(ids(*image), ElementsAre("1=a", "2=b", "3=a"));
    ASSERT_TRUE(image->co_delete_snapshot(named("a")).ok());
    EXPECT_THAT(ids(*image), ElementsAre("2=b", "3=a"));
    ASSERT_TRUE(image->co_create_snapshot("").ok());
    EXPECT_THAT(ids(*image), ElementsAre("2=b", "3=a", "4="));
    EXPECT_EQ(image->co_delete_snapshot(named("c")).error().errnum(), ENOENT);
    EXPECT_EQ(image->co_apply_snapshot(named("c")).error().errnum(), ENOENT);
    expect_sound(*image);
    ASSERT_TRUE(image->co_close().ok());
  });
}

TEST(SnapshotChange, AShownSnapshotHasItsOwnSize) {
  run_in_main_loop([]() coroutine_fn {
    const auto disk = image_with_snapshot();
    auto image = open_image(make_mem_node(disk), {});
    ASSERT_TRUE(image->co_truncate(2 * kSize).ok());
    ASSERT_TRUE(image->co_close().ok());

    const Bytes file_before = disk->bytes;
    image = open_image(make_mem_node(disk), {}, {.writable = false});
    ASSERT_TRUE(image->co_show_snapshot({.id = "1", .name = {}}).ok());
    EXPECT_EQ(image->length(), kSize);
    Bytes seen = read_all(*image);
    EXPECT_EQ(seen[kCluster], std::byte{'a'});
    EXPECT_EQ(seen[8 * kCluster], std::byte{'c'});
    EXPECT_EQ(seen[20 * kCluster], std::byte{0});
    ASSERT_TRUE(image->co_close().ok());
    EXPECT_EQ(disk->bytes, file_before);
  });
}

/// Where the image's first snapshot says that its L1 table is.
uint64_t snapshot_entry(const MemDisk& disk) {
  be64 table;
  std::memcpy(static_cast<void*>(&table), disk.bytes.data() + offsetof(DiskHeaderV2, snapshots_offset), sizeof table);
  return uint64_t{table};
}
uint64_t get64(const MemDisk& disk, uint64_t offset) {
  be64 value;
  std::memcpy(static_cast<void*>(&value), disk.bytes.data() + offset, sizeof value);
  return uint64_t{value};
}
void put64(MemDisk& disk, uint64_t offset, uint64_t number) {
  const be64 value(number);
  std::memcpy(disk.bytes.data() + offset, &value, sizeof value);
}

TEST(SnapshotChange, ADamagedTableOfASnapshotIsRefused) {
  run_in_main_loop([]() coroutine_fn {
    const auto disk = image_with_snapshot();
    put64(*disk, snapshot_entry(*disk), kCluster + 8);
    const Bytes before = disk->bytes;
    const auto image = open_image(make_mem_node(disk), {});
    EXPECT_EQ(image->co_apply_snapshot(named("old")).error().errnum(), EUCLEAN);
    EXPECT_EQ(image->co_delete_snapshot(named("old")).error().errnum(), EUCLEAN);
    ASSERT_TRUE(image->co_close().ok());
    EXPECT_EQ(disk->bytes, before) << "nothing is written";
  });
}

TEST(SnapshotChange, ADamagedEntryOfASnapshotDoesNotBecomeActive) {
  run_in_main_loop([]() coroutine_fn {
    for (const uint64_t bad : {uint64_t{kCluster + 512}, uint64_t{1} << 40, kEntryCopied, uint64_t{1} << 60}) {
      const auto disk = image_with_snapshot();
      auto image = open_image(make_mem_node(disk), {});
      ASSERT_TRUE(image->co_truncate(2 * kSize).ok());  // would have to be undone
      ASSERT_TRUE(image->co_close().ok());
      const uint64_t l1 = get64(*disk, snapshot_entry(*disk));
      put64(*disk, l1, bad);
      const Bytes before = disk->bytes;
      image = open_image(make_mem_node(disk), {});
      const auto applied = image->co_apply_snapshot(named("old"));
      ASSERT_FALSE(applied.ok());
      EXPECT_EQ(applied.error().errnum(), EUCLEAN);
      EXPECT_THAT(applied.error().message(), HasSubstr(fmt::format("at {:#x} is {:#x}", l1, bad)));
      ASSERT_TRUE(image->co_close().ok());
      EXPECT_EQ(disk->bytes, before) << "nothing is written";
    }
  });
}

TEST(SnapshotChange, ASnapshotWithADamagedTableIsDeletedAndLeaksUntilARepair) {
  const auto damage_entry = [](uint64_t bad) {
    return [bad](MemDisk& disk) { put64(disk, get64(disk, snapshot_entry(disk)), bad); };
  };
  const std::vector<std::function<void(MemDisk&)>> damages{
      damage_entry(kCluster + 512), damage_entry(uint64_t{1} << 40), damage_entry(kEntryCopied),
      [](MemDisk& disk) { put64(disk, snapshot_entry(disk), uint64_t{1} << 50); }};
  for (const auto& damage : damages) {
    run_in_main_loop([&]() coroutine_fn {
      const auto disk = image_with_snapshot();
      damage(*disk);
      const auto image = open_image(make_mem_node(disk), {});
      const Bytes content = read_all(*image);
      ASSERT_TRUE(image->co_delete_snapshot(named("old")).ok());
      EXPECT_TRUE(ids(*image).empty());
      expect_sound(*image, /*leaks_allowed=*/true);
      FindingCollector findings;
      EXPECT_TRUE(image->co_check({.repair = RepairMode::kLeaks, .reporter = &findings}).ok());
      EXPECT_THAT(findings.text(), HasSubstr("Leaked cluster"));
      expect_sound(*image);
      EXPECT_EQ(read_all(*image), content);
      ASSERT_TRUE(image->co_close().ok());
    });
  }
}

struct Operation {
  const char* name;
  std::function<Result<void>(BlockNode&)> run;
  char second_cluster;  ///< what the disk has there afterwards

  friend std::ostream& operator<<(std::ostream& out, const Operation& operation) { return out << operation.name; }
};

class FailingSnapshotChange : public testing::TestWithParam<Operation> {};

TEST_P(FailingSnapshotChange, LosesNothingAndSucceedsLater) {
  const Operation& operation = GetParam();
  run_in_main_loop([&]() coroutine_fn {
    const std::vector<std::byte> start = image_with_snapshot()->bytes;
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(testing::Message() << "I/O " << nth);
      auto disk = std::make_shared<MemDisk>(start);
      auto image = open_image(make_fault_node(disk), {});
      FaultDriver& file = fault_driver(*image->file());
      file.fail_nth_io(nth, nth % 2 ? EIO : ENOSPC);
      const auto outcome = operation.run(*image);
      const bool fired = file.fired();
      file.heal();
      if (!fired) {
        EXPECT_TRUE(outcome.ok());
        expect_sound(*image);
        ASSERT_TRUE(image->co_close().ok());
        EXPECT_GT(nth, 10u);
        return;
      }
      Bytes seen = read_all(*image);
      EXPECT_EQ(seen[0], std::byte{'a'});
      EXPECT_EQ(seen[8 * kCluster], std::byte{'c'});
      ASSERT_TRUE(image->co_close().ok());

      image = open_image(make_mem_node(disk), {});
      auto result = image->co_check({.repair = RepairMode::kAll});
      ASSERT_TRUE(result.ok());
      EXPECT_EQ(result->corruptions, 0u);
      expect_sound(*image);
      const auto again = operation.run(*image);
      const bool done_before = !again.ok() && again.error().errnum() == ENOENT;
      EXPECT_TRUE(again.ok() || done_before) << again.error().message();
      seen = read_all(*image);
      EXPECT_EQ(seen[kCluster], std::byte(operation.second_cluster));
      expect_sound(*image);
      ASSERT_TRUE(image->co_close().ok());
      if (testing::Test::HasFailure()) return;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    Operations, FailingSnapshotChange,
    testing::Values(
        Operation{"create", [](BlockNode& image) coroutine_fn { return image.co_create_snapshot("new"); }, 'b'},
        Operation{"apply", [](BlockNode& image) coroutine_fn { return image.co_apply_snapshot(named("old")); }, 'a'},
        Operation{"delete", [](BlockNode& image) coroutine_fn { return image.co_delete_snapshot(named("old")); }, 'b'}),
    testing::PrintToStringParamName());

}  // namespace
}  // namespace coimg::qcow2
