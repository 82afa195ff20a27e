// Tests snapshot.cc and bitmap.cc: tables in a file that the driver only reads.
#include "formats/qcow2/snapshot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "coroutine/main_loop.h"
#include "formats/qcow2/bitmap.h"
#include "tests/support/mem_driver.h"

namespace coimg::qcow2 {
namespace {

using ::testing::HasSubstr;

/// A file that is written front to back.
class TableBytes {
 public:
  template <typename T>
  TableBytes& put(T value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  TableBytes& put32(uint32_t value) { return put(be32(value)); }
  TableBytes& put64(uint64_t value) { return put(be64(value)); }
  TableBytes& text(std::string_view value) {
    const auto bytes = std::as_bytes(std::span(value));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  TableBytes& pad() {
    bytes_.resize(align_up(bytes_.size(), 8));
    return *this;
  }
  TableBytes& snapshot(std::string_view id, std::string_view name, const std::vector<uint64_t>& extra) {
    pad().put64(0x10000).put32(5).put(be16(static_cast<uint16_t>(id.size())));
    put(be16(static_cast<uint16_t>(name.size()))).put32(1700000000).put32(1000).put64(77).put32(4096);
    put32(static_cast<uint32_t>(extra.size() * 8));
    for (const uint64_t field : extra) put64(field);
    return text(id).text(name);
  }
  TableBytes& bitmap(std::string_view name, uint32_t flags, uint8_t granularity_bits = 16, uint32_t extra = 0,
                     uint32_t table_entries = 1) {
    put64(0x20000).put32(table_entries).put32(flags).put(uint8_t{1}).put(granularity_bits);
    put(be16(static_cast<uint16_t>(name.size()))).put32(extra);
    return text(name).pad();
  }
  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

Header with_snapshots(uint32_t count) {
  Header header;
  header.size = kMiB;
  header.nb_snapshots = count;
  return header;
}

Result<SnapshotTable> load_snapshots(const TableBytes& table, uint32_t count) {
  Result<SnapshotTable> result = SnapshotTable();
  run_in_main_loop([&]() coroutine_fn {
    const auto file = make_mem_node(table.bytes());
    result = load_snapshot_table(*file, with_snapshots(count));
    EXPECT_TRUE(file->co_close().ok());
  });
  return result;
}

TEST(SnapshotTableTest, FieldsThatTheExtraDataLackHaveDefaults) {
  TableBytes bytes;
  bytes.snapshot("1", "none", {}).snapshot("22", "some", {uint64_t{1} << 40, 512});
  bytes.snapshot("3", "all", {5, 1024, 99}).snapshot("4", "more", {6, 1024, 98, 1, 2, 3});
  const auto table = load_snapshots(bytes, 4);
  ASSERT_TRUE(table.ok()) << table.error().message();
  const std::vector<Snapshot>& snapshots = table->snapshots;
  ASSERT_EQ(snapshots.size(), 4u);
  EXPECT_EQ(snapshots[0].vm_state_bytes, 4096u);
  EXPECT_EQ(snapshots[0].disk_size, kMiB);
  EXPECT_EQ(snapshots[0].icount, ~uint64_t{0});
  EXPECT_EQ(snapshots[1].id, "22");
  EXPECT_EQ(snapshots[1].name, "some");
  EXPECT_EQ(snapshots[1].vm_state_bytes, uint64_t{1} << 40);
  EXPECT_EQ(snapshots[1].disk_size, 512u);
  EXPECT_EQ(snapshots[1].icount, ~uint64_t{0});
  EXPECT_EQ(snapshots[2].icount, 99u);
  EXPECT_EQ(snapshots[3].icount, 98u);
  EXPECT_EQ(snapshots[3].name, "more");
  EXPECT_EQ(snapshots[3].extra_bytes, 48u);
  EXPECT_EQ(snapshots[3].date_sec, 1700000000u);
  EXPECT_EQ(snapshots[3].l1_table_offset.v, 0x10000u);
  EXPECT_EQ(table->bytes, bytes.bytes().size()) << "without padding behind the last name";
}

TEST(SnapshotTableTest, ATableBehindTheEndOfTheFileIsEmptyNames) {
  const auto table = load_snapshots(TableBytes().snapshot("1", "a", {1, 2, 3}), 3);
  ASSERT_TRUE(table.ok());
  ASSERT_EQ(table->snapshots.size(), 3u);
  EXPECT_EQ(table->snapshots[2].name, "");
}

TEST(SnapshotTableTest, TooMuchExtraDataIsRefused) {
  EXPECT_TRUE(load_snapshots(TableBytes().snapshot("1", "a", std::vector<uint64_t>(128)), 1).ok());
  const auto table = load_snapshots(TableBytes().snapshot("1", "a", std::vector<uint64_t>(129)), 1);
  ASSERT_FALSE(table.ok());
  EXPECT_EQ(table.error().message(), "Too much extra metadata in snapshot table entry 0");
}

TEST(SnapshotTableTest, MoreThan64MiBAreRefused) {
  TableBytes bytes;
  const std::string name(65535, 'n');
  for (int i = 0; i < 600; ++i) bytes.snapshot(name, name, {});
  const auto table = load_snapshots(bytes, 600);
  ASSERT_FALSE(table.ok());
  EXPECT_EQ(table.error().errnum(), EFBIG);
}

// --- bitmaps -------------------------------------------------------------------------------------------------------

Result<std::vector<BitmapEntry>> load_bitmaps(const TableBytes& table, uint32_t count) {
  Header header;
  header.size = kMiB;
  header.autoclear_features = kBitmapsValid;
  header.bitmaps = {.count = count, .directory_bytes = table.bytes().size(), .directory_offset = HostOffset(0)};
  Result<std::vector<BitmapEntry>> result = std::vector<BitmapEntry>();
  run_in_main_loop([&]() coroutine_fn {
    const auto file = make_mem_node(table.bytes());
    result = load_bitmap_directory(*file, header);
    EXPECT_TRUE(file->co_close().ok());
  });
  return result;
}

std::string bitmap_error(const TableBytes& table, uint32_t count) {
  const auto bitmaps = load_bitmaps(table, count);
  return bitmaps.ok() ? "none" : bitmaps.error().message();
}

TEST(BitmapDirectoryTest, ReadsEntries) {
  const auto bitmaps = load_bitmaps(TableBytes().bitmap("b0", 2).bitmap("another", 1, 31), 2);
  ASSERT_TRUE(bitmaps.ok()) << bitmaps.error().message();
  EXPECT_EQ((*bitmaps)[0].name, "b0");
  EXPECT_TRUE((*bitmaps)[0].automatic);
  EXPECT_FALSE((*bitmaps)[0].in_use);
  EXPECT_TRUE((*bitmaps)[1].in_use);
  EXPECT_EQ((*bitmaps)[1].granularity_bits, 31);
}

TEST(BitmapDirectoryTest, RefusesWhatItDoesNotUnderstand) {
  const std::string constraints = "Bitmap 'b' doesn't satisfy the constraints";
  EXPECT_EQ(bitmap_error(TableBytes().bitmap("b", 4), 1), constraints);
  EXPECT_EQ(bitmap_error(TableBytes().bitmap("b", 0, 8), 1), constraints);
  EXPECT_EQ(bitmap_error(TableBytes().bitmap("b", 0, 32), 1), constraints);
  EXPECT_EQ(bitmap_error(TableBytes().bitmap("b", 0, 16, 8).put64(0), 1), "Bitmap extra data is not supported");
  EXPECT_EQ(bitmap_error(TableBytes().bitmap("b", 0), 2), "Broken bitmap directory");
  EXPECT_EQ(bitmap_error(TableBytes().bitmap("b", 0).put64(0), 1), "Broken bitmap directory");
  EXPECT_EQ(bitmap_error(TableBytes().bitmap("b", 0).bitmap("b", 0), 2), "Broken bitmap directory");
  EXPECT_EQ(bitmap_error(TableBytes().bitmap("", 0).bitmap("", 0), 2), "Broken bitmap directory");
}

TEST(BitmapDirectoryTest, TablesMustHaveTheSizeThatTheDiskNeeds) {
  // 1 MiB of disk: at 512 bytes a bit these are 2048 bits.
  EXPECT_EQ(bitmap_error(TableBytes().bitmap("b", 0, 9, 0, 1), 1), "none");
  EXPECT_EQ(bitmap_error(TableBytes().bitmap("b", 0, 9, 0, 0), 1), "Bitmap 'b' doesn't satisfy the constraints");
  EXPECT_EQ(bitmap_error(TableBytes().bitmap("a", 0).bitmap("b", 0, 9, 0, 2), 2),
            "Could not read bitmap 'b' from image: Invalid argument");
  EXPECT_EQ(bitmap_error(TableBytes().bitmap("b", 1, 9, 0, 2), 1), "none") << "of one in use nothing is believed";
}

}  // namespace
}  // namespace coimg::qcow2
