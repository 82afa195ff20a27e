// The state of a machine behind the disk: against a byte array, through snapshots, after failures and power loss.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "tests/formats/qcow2/image_fixture.h"

namespace coimg::qcow2 {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kCluster = 4096;
constexpr uint64_t kSize = 40 * kCluster;
constexpr uint64_t kL2Coverage = kCluster / 8 * kCluster;

Bytes text(uint64_t bytes, char letter) { return {bytes, std::byte(letter)}; }

Result<void> save(BlockNode& image, uint64_t offset, std::span<const std::byte> bytes) coroutine_fn {
  return image.co_pwritev_vm_state(offset, IoVector(bytes));
}

Bytes load(BlockNode& image, uint64_t offset, uint64_t bytes) coroutine_fn {
  Bytes memory(bytes, std::byte{0xee});
  const auto loaded = image.co_preadv_vm_state(offset, IoVector(std::span(memory)));
  EXPECT_TRUE(loaded.ok()) << loaded.error().message();
  return memory;
}

void close(BlockNode& image) coroutine_fn {
  expect_sound(image);
  EXPECT_TRUE(image.co_close().ok());
}

class VmStateModel : public ::testing::TestWithParam<ImageKind> {};

TEST_P(VmStateModel, HoldsWhatWasSaved) {
  const ImageKind kind = GetParam();
  run_in_main_loop([&]() coroutine_fn {
    const uint64_t state_bytes = 9 * kind.cluster_size + 77;
    const Bytes below = kind.backing ? text(2 * kL2Coverage, 'b') : Bytes();
    const auto image = open_image(make_mem_node(create_image(kind, kSize)), below);
    ASSERT_TRUE(image->co_pwrite(0, text(kSize, 'd')).ok());
    Bytes model(state_bytes);
    std::mt19937_64 random(kind.cluster_size);
    for (int step = 0; step < 200; ++step) {
      const uint64_t offset = random() % state_bytes;
      const uint64_t bytes = 1 + random() % std::min<uint64_t>(state_bytes - offset, 2 * kind.cluster_size);
      if (step % 3 == 2) {
        const auto part = std::span(model).subspan(offset, bytes);
        ASSERT_TRUE(std::ranges::equal(load(*image, offset, bytes), part)) << "step " << step;
        continue;
      }
      const Bytes saved(bytes, static_cast<std::byte>(1 + step % 255));
      ASSERT_TRUE(save(*image, offset, saved).ok());
      std::ranges::copy(saved, model.begin() + static_cast<ptrdiff_t>(offset));
    }
    EXPECT_EQ(load(*image, 0, state_bytes), model);
    EXPECT_EQ(image->length(), kSize);
    EXPECT_EQ(read_all(*image), text(kSize, 'd'));
    close(*image);
  });
}

INSTANTIATE_TEST_SUITE_P(Kinds, VmStateModel,
                         ::testing::Values(ImageKind{.cluster_size = 512}, ImageKind{.cluster_size = kCluster},
                                           ImageKind{.cluster_size = kCluster, .version2 = true},
                                           ImageKind{.cluster_size = kCluster, .backing = true},
                                           ImageKind{.cluster_size = 16384, .backing = true, .extended_l2 = true},
                                           ImageKind{.cluster_size = kCluster, .lazy_refcounts = true}));

TEST(VmState, GoesWithItsSnapshot) {
  run_in_main_loop([]() coroutine_fn {
    const auto image = open_image(make_mem_node(create_image({.cluster_size = kCluster}, kSize)), {});
    ASSERT_TRUE(save(*image, 0, text(3 * kCluster, 'o')).ok());
    ASSERT_TRUE(image->co_create_snapshot("old").ok());
    ASSERT_TRUE(save(*image, kCluster, text(kCluster, 'n')).ok());
    EXPECT_EQ(load(*image, kCluster, kCluster), text(kCluster, 'n'));
    ASSERT_TRUE(image->co_apply_snapshot({.id = {}, .name = "old"}).ok());
    EXPECT_EQ(load(*image, 0, 3 * kCluster), text(3 * kCluster, 'o'));
    ASSERT_TRUE(image->co_delete_snapshot({.id = {}, .name = "old"}).ok());
    EXPECT_EQ(load(*image, 0, 3 * kCluster), text(3 * kCluster, 'o'));
    close(*image);
  });
}

TEST(VmState, EndsWhereNoTableReaches) {
  run_in_main_loop([]() coroutine_fn {
    const auto image = open_image(make_mem_node(create_image({.cluster_size = kCluster}, kSize)), {});
    for (const uint64_t offset : {kMaxL1Entries * kL2Coverage, kMaxFileOffset, UINT64_MAX}) {
      EXPECT_EQ(save(*image, offset, text(1, 'x')).error().errnum(), EFBIG) << offset;
      std::byte byte{};
      const auto loaded = image->co_preadv_vm_state(offset, IoVector(std::span(&byte, 1)));
      EXPECT_EQ(loaded.error().errnum(), EFBIG) << offset;
    }
    close(*image);
  });
}

TEST(VmState, AFailureLeavesASoundImageAndTheNextTrySucceeds) {
  run_in_main_loop([]() coroutine_fn {
    const auto fresh = create_image({.cluster_size = kCluster}, kSize);
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(testing::Message() << "I/O " << nth);
      auto disk = std::make_shared<MemDisk>(fresh->bytes);
      const auto image = open_image(make_fault_node(disk), {});
      FaultDriver& file = fault_driver(*image->file());
      file.fail_nth_io(nth, nth % 2 ? EIO : ENOSPC);
      Result<void> outcome = save(*image, 100, text(2 * kCluster, 's'));
      if (outcome.ok()) outcome = image->co_flush();
      const bool fired = file.fired();
      file.heal();
      EXPECT_EQ(outcome.ok(), !fired);
      expect_sound(*image, /*leaks_allowed=*/fired);
      ASSERT_TRUE(save(*image, 100, text(2 * kCluster, 's')).ok());
      EXPECT_EQ(load(*image, 0, 100), Bytes(100));
      EXPECT_EQ(load(*image, 100, 2 * kCluster), text(2 * kCluster, 's'));
      ASSERT_TRUE(image->co_close().ok());
      if (!fired) {
        EXPECT_GT(nth, 5u);
        return;
      }
    }
  });
}

TEST(VmState, APowerLossLosesNothingThatWasFlushed) {
  run_in_main_loop([]() coroutine_fn {
    const auto disk = create_image({.cluster_size = kCluster}, kSize);
    auto image = open_image(make_fault_node(disk), {});
    ASSERT_TRUE(save(*image, 0, text(kCluster, 'f')).ok());
    ASSERT_TRUE(image->co_flush().ok());
    const size_t flushed = fault_driver(*image->file()).log().size();
    ASSERT_TRUE(save(*image, kCluster, text(2 * kCluster, 's')).ok());
    ASSERT_TRUE(image->co_flush().ok());
    const size_t all = fault_driver(*image->file()).log().size();
    for (size_t entries = flushed; entries <= all; ++entries) {
      for (uint64_t seed = 0; seed < 20; ++seed) {
        SCOPED_TRACE(testing::Message() << "power lost behind I/O " << entries << ", seed " << seed);
        const auto left = std::make_shared<MemDisk>(fault_driver(*image->file()).bytes_after_crash(entries, seed));
        const auto after = open_image(make_mem_node(left), {});
        expect_sound(*after, /*leaks_allowed=*/true);
        EXPECT_EQ(load(*after, 0, kCluster), text(kCluster, 'f'));
        for (const std::byte byte : load(*after, kCluster, 2 * kCluster)) {
          ASSERT_THAT(byte, ::testing::AnyOf(std::byte{0}, std::byte{'s'}));
        }
        ASSERT_TRUE(after->co_close().ok());
      }
    }
    close(*image);
  });
}

}  // namespace
}  // namespace coimg::qcow2
