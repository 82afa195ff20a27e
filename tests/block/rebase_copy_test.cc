// Tests block/rebase_copy.cc: what an overlay shows on its new backing file is what it showed on the old one.
#include "block/rebase_copy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "formats/qcow2/driver.h"
#include "formats/raw.h"
#include "tests/support/fault_driver.h"
#include "tests/support/mem_driver.h"

namespace coimg {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kCluster = 4096;
constexpr uint64_t kSize = 2 * kMiB + 1536;  // ends inside a cluster

std::unique_ptr<BlockNode> open_raw(const Bytes& content) coroutine_fn {
  static const auto raw = make_raw_driver_type();
  return *open_format(*raw, make_mem_node(content), {.writable = true});
}

const DriverType& qcow2() {
  static const auto type = make_qcow2_driver_type();
  return *type;
}

/// An overlay without content on `disk`, which lies on `backing`.
std::unique_ptr<BlockNode> make_overlay(const std::shared_ptr<MemDisk>& disk, std::unique_ptr<BlockNode> backing)
    coroutine_fn {
  CreateOptions create(qcow2().create_options());
  EXPECT_TRUE(create.parse("cluster_size=4096,backing_file=b,backing_fmt=raw").ok());
  EXPECT_TRUE(create.set("size", std::to_string(kSize)).ok());
  const auto file = make_mem_node(disk);
  EXPECT_TRUE(qcow2().create(file.get(), "overlay", create).ok());
  EXPECT_TRUE(file->co_close().ok());
  auto node = *open_format(qcow2(), make_fault_node(disk), {.writable = true});
  if (backing) node->set_backing(std::move(backing));
  return node;
}

/// The overlay on another backing file.
Bytes content_on(const std::shared_ptr<MemDisk>& disk, std::unique_ptr<BlockNode> backing) coroutine_fn {
  auto node = *open_format(qcow2(), make_mem_node(disk), {});
  if (backing) node->set_backing(std::move(backing));
  Bytes content = read_all(*node);
  EXPECT_TRUE(node->co_close().ok());
  return content;
}

void close(BlockNode& node) coroutine_fn { EXPECT_TRUE(node.co_close().ok()); }

/// Two disks that are the same but for some places.
struct Disks {
  Bytes old_bytes = pattern(kSize, 1), new_bytes = old_bytes;
  Disks() {
    new_bytes[5 * kCluster + 4095] ^= std::byte{1};
    std::fill_n(new_bytes.begin() + 20 * kCluster, 3 * kCluster, std::byte{0});
    std::fill_n(old_bytes.begin() + 40 * kCluster, 3 * kCluster, std::byte{0});
    new_bytes[kSize - 1] ^= std::byte{1};
  }
};

TEST(RebaseCopy, WhatDiffersIsCopiedAndNothingElse) {
  run_in_main_loop([]() coroutine_fn {
    const Disks disks;
    const auto disk = std::make_shared<MemDisk>();
    auto overlay = make_overlay(disk, open_raw(disks.old_bytes));
    ASSERT_TRUE(overlay->co_pwrite(30 * kCluster + 7, pattern(kCluster, 9)).ok());
    const Bytes expected = read_all(*overlay);
    auto new_backing = open_raw(disks.new_bytes);
    ASSERT_TRUE(co_copy_difference(*overlay, new_backing.get(), {}).ok());
    EXPECT_TRUE(read_all(*overlay) == expected);

    std::vector<uint64_t> own;
    for (uint64_t at = 0; at < kSize; at += kCluster) {
      const auto status = overlay->co_block_status(at, kCluster);
      ASSERT_TRUE(status.ok());
      if (status->allocated) own.push_back(at / kCluster);
    }
    EXPECT_EQ(own, (std::vector<uint64_t>{5, 20, 21, 22, 30, 31, 40, 41, 42, kSize / kCluster}));
    close(*overlay);
    EXPECT_TRUE(content_on(disk, std::move(new_backing)) == expected);
  });
}

TEST(RebaseCopy, ShorterLongerAndMissingBackingFiles) {
  run_in_main_loop([]() coroutine_fn {
    const Disks disks;
    const Bytes part(disks.old_bytes.begin(), disks.old_bytes.begin() + 100 * kCluster + 512);
    const Bytes longer = pattern(2 * kMiB, 3);
    for (const Bytes& old_bytes : {Bytes(), part, longer}) {
      for (const Bytes& new_bytes : {Bytes(), part, disks.new_bytes, longer}) {
        SCOPED_TRACE(testing::Message() << old_bytes.size() << " to " << new_bytes.size() << " bytes");
        const auto disk = std::make_shared<MemDisk>();
        auto overlay = make_overlay(disk, old_bytes.empty() ? nullptr : open_raw(old_bytes));
        const Bytes expected = read_all(*overlay);
        auto new_backing = new_bytes.empty() ? nullptr : open_raw(new_bytes);
        ASSERT_TRUE(co_copy_difference(*overlay, new_backing.get(), {.workers = 3}).ok());
        close(*overlay);
        EXPECT_TRUE(content_on(disk, std::move(new_backing)) == expected);
      }
    }
  });
}

TEST(RebaseCopy, OfTheOldChainOnlyWhatLiesAboveTheNewBackingFileIsRead) {
  run_in_main_loop([]() coroutine_fn {
    const Disks disks;
    auto base = open_raw(disks.old_bytes);
    base->set_file_identity({1, 2});
    auto middle = make_overlay(std::make_shared<MemDisk>(), std::move(base));
    ASSERT_TRUE(middle->co_pwrite(3 * kCluster, pattern(2 * kCluster, 4)).ok());
    const auto disk = std::make_shared<MemDisk>();
    auto overlay = make_overlay(disk, std::move(middle));
    const Bytes expected = read_all(*overlay);
    mem_driver(*overlay->backing()->backing()->file()).reset_counters();

    auto new_backing = open_raw(disks.old_bytes);
    new_backing->set_file_identity({1, 2});
    ASSERT_TRUE(co_copy_difference(*overlay, new_backing.get(), {}).ok());
    EXPECT_EQ(mem_driver(*overlay->backing()->backing()->file()).counters().reads, 0u);
    EXPECT_EQ(mem_driver(*new_backing->file()).counters().bytes_read, 2 * kCluster);
    close(*overlay);
    EXPECT_TRUE(content_on(disk, std::move(new_backing)) == expected);
  });
}

// Each I/O fails once. The overlay shows the same as before on the old backing file, and a second try completes.
TEST(RebaseCopy, AFailureLeavesTheOverlayAsItWas) {
  run_in_main_loop([]() coroutine_fn {
    const Disks disks;
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(testing::Message() << "I/O number " << nth << " fails");
      const auto disk = std::make_shared<MemDisk>();
      auto overlay = make_overlay(disk, open_raw(disks.old_bytes));
      auto new_backing = open_raw(disks.new_bytes);
      FaultDriver& file = fault_driver(*overlay->file());
      file.fail_nth_io(nth, ENOSPC);
      const auto copied = co_copy_difference(*overlay, new_backing.get(), {});
      const bool fired = file.fired();
      file.heal();
      EXPECT_EQ(copied.ok(), !fired);
      EXPECT_TRUE(read_all(*overlay) == disks.old_bytes);
      ASSERT_TRUE(co_copy_difference(*overlay, new_backing.get(), {}).ok());
      close(*overlay);
      EXPECT_TRUE(content_on(disk, std::move(new_backing)) == disks.old_bytes);
      if (!fired) {
        EXPECT_GT(nth, 5u);
        return;
      }
    }
  });
}

TEST(RebaseCopy, StopsWhenAsked) {
  run_in_main_loop([]() coroutine_fn {
    auto overlay = make_overlay(std::make_shared<MemDisk>(), open_raw(pattern(kSize, 1)));
    int asked = 0;
    const RebaseCopyOptions options{.should_stop = [&] { return ++asked > 1; }};
    const auto copied = co_copy_difference(*overlay, nullptr, options);
    ASSERT_FALSE(copied.ok());
    EXPECT_EQ(copied.error().errnum(), ECANCELED);
    close(*overlay);
  });
}

}  // namespace
}  // namespace coimg
