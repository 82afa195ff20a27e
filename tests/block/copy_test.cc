// Tests block/copy.cc and block/copy_plan.cc.
#include "block/copy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "block/copy_plan.h"
#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "formats/qcow2/driver.h"
#include "formats/raw.h"
#include "tests/support/fault_driver.h"
#include "tests/support/mem_driver.h"

namespace coimg {
namespace {

using Bytes = std::vector<std::byte>;

/// Data, zeros that are written and holes in random lengths.
Bytes random_content(size_t bytes, unsigned seed) {
  std::mt19937 random(seed);
  Bytes content(bytes);
  for (size_t at = 0; at < bytes;) {
    const size_t length = std::min<size_t>(bytes - at, random() % 3 == 0 ? random() % 20000 : random() % 400000);
    if (random() % 2) {
      const Bytes data = pattern(length, random());
      std::ranges::copy(data, content.begin() + static_cast<ptrdiff_t>(at));
    }
    at += length;
  }
  return content;
}

void close(BlockNode& node) coroutine_fn { EXPECT_TRUE(node.co_close().ok()); }

std::unique_ptr<BlockNode> open_raw(std::unique_ptr<BlockNode> file) coroutine_fn {
  static const auto raw = make_raw_driver_type();
  return *open_format(*raw, std::move(file), {.writable = true});
}

class CopyTest : public ::testing::Test {
 protected:
  /// A new qcow2 image of `size` bytes on `disk`.
  std::unique_ptr<BlockNode> make_qcow2(const std::shared_ptr<MemDisk>& disk, uint64_t size,
                                        const std::string& options = "cluster_size=65536",
                                        std::unique_ptr<BlockNode> backing = nullptr) coroutine_fn {
    CreateOptions create(qcow2_->create_options());
    EXPECT_TRUE(create.parse(options).ok());
    EXPECT_TRUE(create.set("size", std::to_string(size)).ok());
    auto file = make_mem_node(disk);
    EXPECT_TRUE(qcow2_->create(file.get(), "target", create).ok());
    auto node = *open_format(*qcow2_, std::move(file), {.writable = true});
    if (backing) node->set_backing(std::move(backing));
    return node;
  }

  const std::unique_ptr<DriverType> qcow2_ = make_qcow2_driver_type();
};

TEST_F(CopyTest, TheTargetHoldsWhatTheSourceHolds) {
  for (unsigned seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    for (const unsigned workers : {1u, 3u, 16u}) {
      run_in_main_loop([&]() coroutine_fn {
        const Bytes content = random_content(5 * kMiB + 512 * (seed % 7), seed);
        auto source = open_raw(make_mem_node(content));
        auto target = make_qcow2(std::make_shared<MemDisk>(), content.size());
        const CopyOptions options{.workers = workers, .target_is_zero = true};
        ASSERT_TRUE(co_copy({source.get()}, *target, options).ok());
        EXPECT_TRUE(read_all(*target) == content);
        close(*source);
        close(*target);
      });
    }
  }
}

TEST_F(CopyTest, SeveralSourcesStandBehindEachOther) {
  run_in_main_loop([&]() coroutine_fn {
    const Bytes first = random_content(1000 * kSectorSize, 1), second = random_content(3001 * kSectorSize, 2);
    for (const bool compress : {false, true}) {
      auto a = open_raw(make_mem_node(first)), b = open_raw(make_mem_node(second));
      auto target = make_qcow2(std::make_shared<MemDisk>(), first.size() + second.size());
      const CopyOptions options{.compress = compress, .target_is_zero = true};
      ASSERT_TRUE(co_copy({a.get(), b.get()}, *target, options).ok());
      Bytes both = first;
      both.insert(both.end(), second.begin(), second.end());
      EXPECT_TRUE(read_all(*target) == both) << "compress " << compress;
      close(*a);
      close(*b);
      close(*target);
    }
  });
}

TEST_F(CopyTest, AWindowOfTheSourcesIsCopied) {
  run_in_main_loop([&]() coroutine_fn {
    const Bytes first = random_content(1000 * kSectorSize, 1), second = random_content(3001 * kSectorSize, 2);
    Bytes both = first;
    both.insert(both.end(), second.begin(), second.end());
    for (const CopyWindow window : {CopyWindow{0, 1000}, CopyWindow{777, 600000}, CopyWindow{511999, 2},
                                    CopyWindow{600001, UINT64_MAX}, CopyWindow{both.size(), 5}}) {
      auto a = open_raw(make_mem_node(first)), b = open_raw(make_mem_node(second));
      const uint64_t bytes = std::min<uint64_t>(window.bytes, both.size() - window.offset);
      Bytes expected(both.begin() + static_cast<ptrdiff_t>(window.offset),
                     both.begin() + static_cast<ptrdiff_t>(window.offset + bytes));
      expected.resize(align_up(bytes, kSectorSize));
      for (const uint64_t sparse : {0, 4096}) {
        auto target = make_qcow2(std::make_shared<MemDisk>(), bytes);
        ASSERT_TRUE(co_copy({a.get(), b.get()}, *target, {.sparse_bytes = sparse, .window = window}).ok());
        EXPECT_TRUE(read_all(*target) == expected) << window.offset << " + " << window.bytes;
        close(*target);
      }
      close(*a);
      close(*b);
    }
  });
}

TEST_F(CopyTest, AllLayersAboveABaseAreCopiedIntoIt) {
  run_in_main_loop([&]() coroutine_fn {
    const Bytes base_content = pattern(4 * kMiB, 1), middle = pattern(kMiB, 2), top = pattern(kMiB / 2, 3);
    // The middle layer is shorter than both others: behind its end the top shows zeros.
    const auto backed = "backing_file=b,backing_fmt=raw,cluster_size=4096";
    auto image =
        make_qcow2(std::make_shared<MemDisk>(), 4 * kMiB, backed,
                   make_qcow2(std::make_shared<MemDisk>(), 2 * kMiB, backed, open_raw(make_mem_node(base_content))));
    BlockNode& base = *image->backing()->backing();
    ASSERT_TRUE(image->backing()->co_pwrite(kMiB / 2, middle).ok());
    ASSERT_TRUE(image->co_pwrite(100, top).ok());
    ASSERT_TRUE(image->co_pwrite_zeroes(kMiB + 4096, 8192).ok());
    const Bytes expected = read_all(*image);
    ASSERT_TRUE(co_copy({image.get()}, base, {.sparse_bytes = 0, .target_has_backing = true, .above = &base}).ok());
    EXPECT_TRUE(read_all(base) == expected);
    EXPECT_EQ(expected.back(), std::byte{0});
    close(*image);
  });
}

TEST_F(CopyTest, TheFileIsTheSameForAnyNumberOfWorkers) {
  const Bytes content = random_content(8 * kMiB, 4);
  for (const bool compress : {false, true}) {
    Bytes expected;
    for (const unsigned workers : {1u, 2u, 5u, 16u}) {
      auto disk = std::make_shared<MemDisk>();
      run_in_main_loop([&]() coroutine_fn {
        auto file = make_fault_node(std::make_shared<MemDisk>(content));
        fault_driver(*file).set_delay_ns(workers * 1000);  // reads finish in another order
        auto source = open_raw(std::move(file));
        auto target = make_qcow2(disk, content.size());
        ASSERT_TRUE(
            co_copy({source.get()}, *target, {.workers = workers, .compress = compress, .target_is_zero = true}).ok());
        close(*source);
        close(*target);
      });
      if (expected.empty()) expected = disk->bytes;
      EXPECT_TRUE(disk->bytes == expected) << workers << " workers, compress " << compress;
    }
  }
}

TEST_F(CopyTest, OldContentsOfTheTargetGo) {
  run_in_main_loop([&]() coroutine_fn {
    const Bytes content = random_content(3 * kMiB, 5);
    auto source = open_raw(make_mem_node(content));
    auto target = open_raw(make_mem_node(pattern(content.size(), 9)));
    ASSERT_TRUE(co_copy({source.get()}, *target, {}).ok());
    EXPECT_TRUE(read_all(*target) == content);
    close(*source);
    close(*target);
  });
}

TEST_F(CopyTest, WithoutSparsenessEveryByteIsStored) {
  run_in_main_loop([&]() coroutine_fn {
    auto source = open_raw(make_mem_node(Bytes(3 * kMiB)));
    auto target = make_qcow2(std::make_shared<MemDisk>(), 3 * kMiB);
    ASSERT_TRUE(
        co_copy({source.get()}, *target, {.sparse_bytes = 0, .store_zeros = true, .target_is_zero = true}).ok());
    const auto status = target->co_block_status(0, 3 * kMiB);
    ASSERT_TRUE(status.ok());
    EXPECT_TRUE(status->allocated && status->data);
    EXPECT_EQ(status->bytes, 3 * kMiB);
    close(*source);
    close(*target);
  });
}

TEST_F(CopyTest, ShortRunsOfZerosAreDataAndLongOnesHoles) {
  run_in_main_loop([&]() coroutine_fn {
    Bytes content = pattern(kMiB);
    std::fill_n(content.begin() + 64 * kKiB, 16 * kKiB, std::byte{0});   // shorter than -S
    std::fill_n(content.begin() + 256 * kKiB, 32 * kKiB, std::byte{0});  // as long
    auto disk = std::make_shared<MemDisk>(pattern(kMiB, 7));
    auto source = open_raw(make_mem_node(content));
    auto target = open_raw(make_mem_node(disk));
    ASSERT_TRUE(co_copy({source.get()}, *target, {.sparse_bytes = 32 * kKiB}).ok());
    EXPECT_TRUE(disk->bytes == content);
    const IoCounters& counters = mem_driver(*target->file()).counters();
    EXPECT_EQ(counters.bytes_written, kMiB - 32 * kKiB);
    EXPECT_EQ(counters.zeroes, 1u);
    close(*source);
    close(*target);
  });
}

TEST_F(CopyTest, AnOverlayGetsOnlyWhatTheTopLayerHolds) {
  run_in_main_loop([&]() coroutine_fn {
    for (const bool compress : {false, true}) {
      const Bytes base = pattern(2 * kMiB, 1);
      auto source =
          make_qcow2(std::make_shared<MemDisk>(), 2 * kMiB, "cluster_size=4096", open_raw(make_mem_node(base)));
      ASSERT_TRUE(source->co_pwrite(100000, pattern(30000, 2)).ok());
      ASSERT_TRUE(source->co_pwrite_zeroes(kMiB, 200000).ok());
      const Bytes expected = read_all(*source);
      auto target =
          make_qcow2(std::make_shared<MemDisk>(), 2 * kMiB, "cluster_size=65536", open_raw(make_mem_node(base)));
      ASSERT_TRUE(co_copy({source.get()}, *target, {.compress = compress, .target_has_backing = true}).ok());
      EXPECT_TRUE(read_all(*target) == expected) << "compress " << compress;
      const auto status = target->co_block_status(1536 * kKiB, 512 * kKiB);
      ASSERT_TRUE(status.ok());
      EXPECT_FALSE(status->allocated) << "what only the base holds was copied";
      close(*source);
      close(*target);
    }
  });
}

// The source's guest sees zeros where no layer has anything; the base would show through there.
TEST_F(CopyTest, AnOverlayGetsTheZerosOfASourceThatHasNothingBelow) {
  run_in_main_loop([&]() coroutine_fn {
    for (const uint64_t below : {uint64_t{0}, 300 * kKiB}) {
      SCOPED_TRACE(below);
      auto source = make_qcow2(std::make_shared<MemDisk>(), kMiB, "cluster_size=4096",
                               below == 0 ? nullptr : open_raw(make_mem_node(pattern(below, 1))));
      ASSERT_TRUE(source->co_pwrite(500000, pattern(3000, 2)).ok());
      auto target = make_qcow2(std::make_shared<MemDisk>(), kMiB, "cluster_size=65536",
                               open_raw(make_mem_node(pattern(kMiB, 1))));
      ASSERT_TRUE(co_copy({source.get()}, *target, {.target_has_backing = true}).ok());
      EXPECT_TRUE(read_all(*target) == read_all(*source));
      close(*source);
      close(*target);
    }
  });
}

TEST_F(CopyTest, WhatTheTargetShowsAlreadyIsLeftToItsBackingFile) {
  run_in_main_loop([&]() coroutine_fn {
    Bytes base = pattern(2 * kMiB, 1);
    std::fill_n(base.begin() + 600000, 200000, std::byte{0});
    Bytes content = base;
    content.resize(3 * kMiB + 512);
    content[100000] ^= std::byte{1};
    std::fill_n(content.begin() + 1200000, 5000, std::byte{0});
    content.back() = std::byte{7};
    auto source = open_raw(make_mem_node(content));
    auto target =
        make_qcow2(std::make_shared<MemDisk>(), content.size(), "cluster_size=65536", open_raw(make_mem_node(base)));
    ASSERT_TRUE(co_copy({source.get()}, *target, {.leave_equal = true}).ok());
    EXPECT_TRUE(read_all(*target) == content);
    for (uint64_t offset = 0; offset < 2 * kMiB; offset += 65536) {
      const auto status = target->co_block_status(offset, 65536);
      ASSERT_TRUE(status.ok());
      const bool differs = offset == 65536 || offset == 1179648;
      EXPECT_EQ(status->allocated, differs) << offset;
    }
    close(*source);
    close(*target);
  });
}

TEST_F(CopyTest, WhicheverIoFailsTheErrorNamesTheByteAndAllWorkersEnd) {
  const Bytes content = random_content(4 * kMiB, 6);
  bool read_failed = false, write_failed = false;
  for (uint64_t nth = 1;; nth += 3) {
    bool fired = false;
    run_in_main_loop([&]() coroutine_fn {
      auto source = open_raw(make_fault_node(std::make_shared<MemDisk>(content)));
      auto target = open_raw(make_fault_node(std::make_shared<MemDisk>(Bytes(content.size()))));
      FaultDriver& faulty = fault_driver(nth % 2 ? *source->file() : *target->file());
      faulty.fail_nth_io(nth / 2 + 1, EIO, kOpRead | kOpWrite | kOpZeroes);
      const auto copied = co_copy({source.get()}, *target, {.workers = 4});
      fired = faulty.fired();
      ASSERT_EQ(copied.ok(), !fired);
      if (fired) {
        EXPECT_EQ(copied.error().errnum(), EIO);
        EXPECT_THAT(copied.error().message(),
                    ::testing::MatchesRegex("error while (reading|writing) at byte [0-9]+: .*"));
        (copied.error().message().find("reading") != std::string::npos ? read_failed : write_failed) = true;
      }
      faulty.heal();
      close(*source);
      close(*target);
    });
    if (!fired && nth > 12) break;
  }
  EXPECT_TRUE(read_failed && write_failed) << "nothing was tested";
}

TEST_F(CopyTest, SalvageMakesUnreadableSectorsZero) {
  run_in_main_loop([&]() coroutine_fn {
    const Bytes content = pattern(kMiB);
    auto source = open_raw(make_fault_node(std::make_shared<MemDisk>(content)));
    fault_driver(*source->file()).fail_range(100 * kSectorSize, 2 * kSectorSize, EIO, kOpRead);
    auto target = open_raw(make_mem_node(Bytes(content.size())));
    std::vector<std::string> warnings;
    ASSERT_TRUE(co_copy({source.get()}, *target,
                        {.salvage = true, .on_warning = [&](const std::string& w) { warnings.push_back(w); }})
                    .ok());
    Bytes expected = content;
    std::fill_n(expected.begin() + 100 * kSectorSize, 2 * kSectorSize, std::byte{0});
    EXPECT_TRUE(read_all(*target) == expected);
    EXPECT_EQ(warnings.size(), 2u);
    close(*source);
    close(*target);
  });
}

TEST_F(CopyTest, ItStopsWhenAskedAndReportsProgressUpward) {
  run_in_main_loop([&]() coroutine_fn {
    const Bytes content = pattern(8 * kMiB);
    auto source = open_raw(make_mem_node(content));
    auto target = open_raw(make_mem_node(Bytes(content.size())));
    uint64_t seen = 0;
    CopyOptions options{.workers = 2};
    options.on_progress = [&](uint64_t done, uint64_t total) {
      EXPECT_GT(done, seen);
      EXPECT_EQ(total, content.size());
      seen = done;
    };
    options.should_stop = [&] { return seen >= 2 * kMiB; };
    const auto copied = co_copy({source.get()}, *target, options);
    ASSERT_FALSE(copied.ok());
    EXPECT_EQ(copied.error().errnum(), ECANCELED);
    EXPECT_LT(seen, content.size());
    close(*source);
    close(*target);
  });
}

TEST(CopyPlanTest, ChunksCoverTheSourceAndBeginAtUnits) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    run_in_main_loop([&]() coroutine_fn {
      const Bytes content = random_content(kMiB + 512 * seed, seed);
      auto node = open_raw(make_mem_node(content));
      SourceSequence sources({node.get()});
      const bool whole_units = seed % 2 == 0;
      CopyPlan plan(sources, {.granularity = 65536,
                              .chunk_bytes = 262144,
                              .idle_chunk_bytes = kGiB,
                              .top_layer_only = false,
                              .whole_units = whole_units});
      uint64_t position = 0;
      while (true) {
        const auto next = plan.next();
        ASSERT_TRUE(next.ok());
        if (!*next) break;
        const CopyChunk& chunk = **next;
        EXPECT_EQ(chunk.offset, position);
        EXPECT_EQ(chunk.offset % 65536, 0u);
        uint64_t at = chunk.offset;
        for (const CopyRun& run : chunk.runs) {
          EXPECT_EQ(run.offset, at);
          if (run.kind == CopyKind::kZero) {
            EXPECT_TRUE(is_zero(std::span(content).subspan(run.offset, run.bytes)));
          }
          if (whole_units) {
            EXPECT_EQ(run.offset % 65536, 0u);
          }
          at += run.bytes;
        }
        EXPECT_EQ(at, chunk.offset + chunk.bytes);
        position = at;
      }
      EXPECT_EQ(position, content.size());
      close(*node);
    });
  }
}

}  // namespace
}  // namespace coimg
