#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "formats/add_cow/header.h"
#include "tests/formats/add_cow/image_fixture.h"

namespace coimg::add_cow {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kCluster = 4096;
constexpr uint64_t kSize = kCluster * 10 + 512;  // 11 clusters

/// An image with the clusters 0 and 2 allocated, and a clean image file, to be damaged.
class AddCowCheck : public ::testing::Test {
 protected:
  AddCowCheck() {
    run_in_main_loop([this]() coroutine_fn {
      file_ = std::make_shared<MemDisk>(create_add_cow(kind_, kSize));
      image_file_ = std::make_shared<MemDisk>(Bytes(kSize));
      backing_ = backing_content(kind_, kSize, 3);
      const auto disk = open_image(kind_, make_mem_node(file_), make_mem_node(image_file_), backing_);
      EXPECT_TRUE(disk->co_pwrite(100, pattern(100)).ok());
      EXPECT_TRUE(disk->co_pwrite(kCluster * 2, pattern(100)).ok());
      content_ = read_all(*disk);
      EXPECT_TRUE(disk->co_close().ok());
    });
  }

  CheckResult check(RepairMode repair = RepairMode::kNone) {
    std::optional<CheckResult> result;
    run_in_main_loop([&]() coroutine_fn {
      const OpenFlags flags{.writable = repair != RepairMode::kNone, .check = true};
      std::unique_ptr<BlockNode> image = image_file_ ? make_mem_node(image_file_) : nullptr;
      const auto disk = open_image(kind_, make_mem_node(file_), std::move(image), {}, flags);
      ASSERT_NE(disk, nullptr);
      FindingCollector findings;
      const auto checked = disk->co_check({.repair = repair, .reporter = &findings});
      ASSERT_TRUE(checked.ok()) << checked.error().message();
      result = *checked;
      text_ = findings.text();
      EXPECT_TRUE(disk->co_close().ok());
    });
    return result.value_or(CheckResult());
  }
  /// Finds `corruptions`, with `text`; repairs them; finds nothing any more.
  void expect_mended(uint64_t corruptions, const char* text, const std::function<void()>& damage) {
    SCOPED_TRACE(text);
    const Bytes file = file_->bytes, image = image_file_->bytes;
    damage();
    const Bytes damaged = file_->bytes;
    EXPECT_EQ(check().corruptions, corruptions) << text_;
    EXPECT_THAT(text_, HasSubstr(text));
    EXPECT_EQ(file_->bytes, damaged) << "check without repair has written";
    const CheckResult mended = check(RepairMode::kAll);
    EXPECT_EQ(mended.corruptions_fixed, corruptions) << text_;
    EXPECT_EQ(mended.corruptions, 0u);
    const CheckResult after = check();
    EXPECT_EQ(after.corruptions + after.leaks + after.check_errors, 0u) << text_;
    EXPECT_EQ(text_, "");
    file_->bytes = file;
    image_file_->bytes = image;
  }
  void set_field(size_t offset, unsigned char value) { file_->bytes[offset] = std::byte{value}; }

  const ImageKind kind_{.cluster_size = kCluster, .below = Below::kLong};
  std::shared_ptr<MemDisk> file_, image_file_;
  Bytes backing_, content_;
  std::string text_;
};

TEST_F(AddCowCheck, ASoundImageHasNoFindings) {
  const CheckResult result = check();
  EXPECT_EQ(text_, "");
  EXPECT_EQ(result.corruptions + result.leaks + result.check_errors, 0u);
  EXPECT_EQ(result.total_clusters, 11u);
  EXPECT_EQ(result.allocated_clusters, 2u);
  EXPECT_EQ(result.image_end_offset, kCluster * 2);
  const Bytes before = file_->bytes;
  check(RepairMode::kAll);
  EXPECT_EQ(file_->bytes, before) << "there was nothing to repair";
}

TEST_F(AddCowCheck, FaultsOfTheHeaderAreAllReportedAndNotRepaired) {
  set_field(offsetof(DiskHeader, features), 4);
  set_field(offsetof(DiskHeader, image_bytes), 0);
  image_file_ = nullptr;  // it is not even looked for
  const Bytes before = file_->bytes;
  EXPECT_EQ(check(RepairMode::kAll).check_errors, 2u);
  EXPECT_THAT(text_, HasSubstr("add-cow header at 0x18: features is 0x4"));
  EXPECT_THAT(text_, HasSubstr("image_size is 0"));
  EXPECT_EQ(file_->bytes, before);
}

TEST_F(AddCowCheck, ABitmapThatIsCutShortIsMended) {
  expect_mended(1, "the file has 4097 bytes, a disk of 41472 bytes needs 4098",
                [this] { file_->bytes.resize(kCluster + 1); });
}

TEST_F(AddCowCheck, BitsBehindTheLastClusterAreCleared) {
  expect_mended(1, "6 bits are set behind the last cluster, 11", [this] {
    file_->bytes[kCluster + 1] |= std::byte{0xf8};
    file_->bytes[kCluster + 4095] = std::byte{0x80};
  });
}

TEST_F(AddCowCheck, AnAreaOfAnotherLengthIsANote) {
  expect_mended(0, "Note: the file has 4098 bytes", [this] { file_->bytes.resize(kCluster + 2); });
  expect_mended(0, "Note: the file has 20480 bytes", [this] { file_->bytes.resize(kCluster * 5); });
  expect_mended(1, "bits are set behind the last cluster", [this] { file_->bytes.resize(kCluster * 5, std::byte{1}); });
}

TEST_F(AddCowCheck, StrayBytesOfTheHeaderAreANote) {
  expect_mended(0, "Note: the header has bytes that nothing refers to", [this] { set_field(4000, 1); });
  expect_mended(0, "Note: backing_fmt is 'raw' without a backing file", [this] {
    std::fill_n(file_->bytes.begin() + 4, 8, std::byte{0});
    std::fill_n(file_->bytes.begin() + 76, 4, std::byte{0});
  });
}

TEST_F(AddCowCheck, UnknownCompatibleFeaturesAreNotedAndKept) {
  set_field(offsetof(DiskHeader, compatible_features), 0x42);
  EXPECT_EQ(check(RepairMode::kAll).corruptions, 0u);
  EXPECT_THAT(text_, HasSubstr("not known: 0x42"));
  EXPECT_EQ(file_->bytes[offsetof(DiskHeader, compatible_features)], std::byte{0x42});
}

TEST_F(AddCowCheck, ACompleteImageGetsItsMark) {
  const auto complete = [this] {
    file_->bytes[kCluster] = std::byte{0xff};
    file_->bytes[kCluster + 1] = std::byte{0x07};
  };
  expect_mended(0, "Note: all clusters are allocated", complete);
  complete();
  check(RepairMode::kAll);
  EXPECT_EQ(file_->bytes[offsetof(DiskHeader, compatible_features)], std::byte{kAllAllocated});
}

TEST_F(AddCowCheck, WhatNoClusterUsesIsALeak) {
  std::fill_n(image_file_->bytes.begin() + kCluster * 4, 3 * kCluster, std::byte{1});
  image_file_->bytes[kSize - 1] = std::byte{1};
  CheckResult result = check();
  EXPECT_EQ(result.leaks, 4u) << text_;
  EXPECT_EQ(result.corruptions, 0u);
  result = check(RepairMode::kLeaks);
  EXPECT_EQ(result.leaks_fixed, 4u);
  EXPECT_EQ(result.leaks, 0u);
  EXPECT_EQ(check().leaks, 0u) << text_;
  run_in_main_loop([this]() coroutine_fn {
    const auto disk = open_image(kind_, make_mem_node(file_), make_mem_node(image_file_), backing_);
    EXPECT_EQ(read_all(*disk), content_) << "what is allocated is untouched";
    EXPECT_TRUE(disk->co_close().ok());
  });
}

TEST_F(AddCowCheck, EachClusterLeaksOnce) {
  // Odd clusters are allocated; the image file stores something in each, which begins and ends inside of them.
  file_->bytes[kCluster] = std::byte{0xaa};
  file_->bytes[kCluster + 1] = std::byte{0x02};
  std::fill_n(image_file_->bytes.begin() + 100, kCluster * 9, std::byte{1});
  EXPECT_EQ(check().leaks, 5u) << text_;
  EXPECT_THAT(text_, HasSubstr("Leaked clusters from 0 on: the image file stores data for 5 clusters"));
  const Bytes before = image_file_->bytes;
  EXPECT_EQ(check(RepairMode::kLeaks).leaks_fixed, 5u);
  for (size_t at = 0; at < kSize; ++at) {
    ASSERT_EQ(image_file_->bytes[at], at / kCluster % 2 == 1 ? before[at] : std::byte{0}) << at;
  }
  EXPECT_EQ(check().leaks, 0u) << text_;
}

TEST_F(AddCowCheck, OnlyLeaksAreRepairedWhenThatIsAskedFor) {
  file_->bytes[kCluster + 100] = std::byte{1};
  set_field(4000, 1);
  const Bytes before = file_->bytes;
  EXPECT_EQ(check(RepairMode::kLeaks).corruptions, 1u);
  EXPECT_EQ(file_->bytes, before);
}

TEST_F(AddCowCheck, ACompleteImageHasNoUseForItsBitmap) {
  set_field(offsetof(DiskHeader, compatible_features), 1);
  file_->bytes[kCluster + 100] = std::byte{1};
  std::ranges::fill(image_file_->bytes, std::byte{7});
  const CheckResult result = check();
  EXPECT_EQ(result.corruptions + result.leaks, 0u) << text_;
  EXPECT_EQ(result.allocated_clusters, 11u);
}

}  // namespace
}  // namespace coimg::add_cow
