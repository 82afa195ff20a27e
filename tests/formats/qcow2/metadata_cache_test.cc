#include "formats/qcow2/metadata_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "block/util/math.h"
#include "coroutine/co_group.h"
#include "coroutine/main_loop.h"
#include "tests/support/fault_driver.h"

namespace coimg::qcow2 {
namespace {

using ::testing::HasSubstr;

constexpr size_t kSlice = 512;

HostOffset slice(uint64_t index) { return HostOffset(index * kSlice); }

/// A file of `slices` slices, each filled with its index plus one.
std::shared_ptr<MemDisk> numbered_disk(size_t slices) {
  auto disk = std::make_shared<MemDisk>();
  for (size_t i = 0; i < slices; ++i) disk->bytes.resize((i + 1) * kSlice, std::byte(i + 1));
  return disk;
}

/// Lets others run before and after each request.
std::unique_ptr<BlockNode> yielding_node(std::shared_ptr<MemDisk> disk) {
  MemOptions options;
  options.yields = true;
  return make_mem_node(std::move(disk), options);
}

void set_byte(MetadataCache& cache, const MetadataCache::Pin& pin, int value) {
  pin.data()[0] = std::byte(value);
  cache.mark_dirty(pin);
}

std::vector<uint64_t> written_offsets(const BlockNode& node) {
  std::vector<uint64_t> offsets;
  for (const LoggedIo& io : fault_driver(node).log()) {
    if (io.op == kOpWrite) offsets.push_back(io.offset);
  }
  return offsets;
}

TEST(MetadataCache, ReadsASliceOnceAndShowsItAgain) {
  run_in_main_loop([]() coroutine_fn {
    const auto file = make_mem_node(numbered_disk(4));
    MetadataCache cache(*file, *file, kSlice, 4, "L2 table");
    for (int round = 0; round < 2; ++round) {
      auto pin = cache.load(slice(2));
      ASSERT_TRUE(pin.ok());
      EXPECT_EQ(pin->data()[0], std::byte(3));
      EXPECT_EQ(pin->offset(), slice(2));
    }
    EXPECT_EQ(mem_driver(*file).counters().reads, 1u);
    EXPECT_TRUE(file->co_close().ok());
  });
}

TEST(MetadataCache, ShowsZerosBehindTheEndOfTheFile) {
  run_in_main_loop([]() coroutine_fn {
    auto disk = numbered_disk(1);
    disk->bytes.resize(100);  // ends inside the slice
    const auto file = make_mem_node(disk);
    MetadataCache cache(*file, *file, kSlice, 4, "L2 table");
    auto first = cache.load(slice(0));
    auto second = cache.load(slice(1));
    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_EQ(first->data()[99], std::byte(1));
    EXPECT_EQ(first->data()[100], std::byte(0));
    EXPECT_EQ(second->data()[0], std::byte(0));
    EXPECT_TRUE(file->co_close().ok());
  });
}

TEST(MetadataCache, ConcurrentLoadsOfOneSliceReadItOnce) {
  run_in_main_loop([]() coroutine_fn {
    const auto file = yielding_node(numbered_disk(4));
    MetadataCache cache(*file, *file, kSlice, 4, "L2 table");
    CoGroup group;
    for (int i = 0; i < 8; ++i) {
      group.start([&]() coroutine_fn {
        auto pin = cache.load(slice(1));
        ASSERT_TRUE(pin.ok());
        EXPECT_EQ(pin->data()[0], std::byte(2));
      });
    }
    group.wait_all();
    EXPECT_EQ(mem_driver(*file).counters().reads, 1u);
    EXPECT_TRUE(file->co_close().ok());
  });
}

TEST(MetadataCache, AFailedLoadNamesTheSliceAndCanBeRepeated) {
  run_in_main_loop([]() coroutine_fn {
    const auto file = make_fault_node(numbered_disk(4));
    MetadataCache cache(*file, *file, kSlice, 4, "refcount block");
    fault_driver(*file).fail_nth_io(1, EIO);
    auto pin = cache.load(slice(1));
    ASSERT_FALSE(pin.ok());
    EXPECT_EQ(pin.error().errnum(), EIO);
    EXPECT_THAT(pin.error().message(), HasSubstr("refcount block at 0x200"));
    EXPECT_TRUE(cache.load(slice(1)).ok());
    EXPECT_TRUE(file->co_close().ok());
  });
}

TEST(MetadataCache, WritesNeighboursTogetherAndInOrder) {
  run_in_main_loop([]() coroutine_fn {
    const auto file = make_fault_node(numbered_disk(8));
    MetadataCache cache(*file, *file, kSlice, 8, "L2 table");
    for (const int index : {5, 2, 1}) set_byte(cache, *cache.load(slice(index)), 100 + index);
    EXPECT_TRUE(cache.dirty());
    ASSERT_TRUE(cache.write_back().ok());
    EXPECT_FALSE(cache.dirty());
    EXPECT_EQ(written_offsets(*file), (std::vector<uint64_t>{slice(1).v, slice(5).v}));
    EXPECT_EQ(fault_driver(*file).bytes()[slice(2).v], std::byte(102));
    EXPECT_TRUE(file->co_close().ok());
  });
}

TEST(MetadataCache, EvictsTheLongestUnusedAndWritesItFirst) {
  run_in_main_loop([]() coroutine_fn {
    const auto file = make_mem_node(numbered_disk(8));
    MetadataCache cache(*file, *file, kSlice, 2, "L2 table");
    set_byte(cache, *cache.load(slice(0)), 77);
    ASSERT_TRUE(cache.load(slice(1)).ok());
    ASSERT_TRUE(cache.load(slice(2)).ok());  // slice 0 has to go
    EXPECT_EQ(mem_driver(*file).bytes()[0], std::byte(77));
    auto again = cache.load(slice(0));
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->data()[0], std::byte(77));
    EXPECT_EQ(mem_driver(*file).counters().reads, 4u);
    again->reset();
    EXPECT_TRUE(file->co_close().ok());
  });
}

TEST(MetadataCache, WaitsForAPinToGoWhenAllSlicesArePinned) {
  run_in_main_loop([]() coroutine_fn {
    const auto file = make_mem_node(numbered_disk(8));
    MetadataCache cache(*file, *file, kSlice, 2, "L2 table");
    auto first = cache.load(slice(0));
    auto second = cache.load(slice(1));
    bool loaded = false;
    CoGroup group;
    group.start([&]() coroutine_fn { loaded = cache.load(slice(2)).ok(); });
    ASSERT_TRUE(file->co_flush().ok());
    EXPECT_FALSE(loaded);
    first->reset();
    group.wait_all();
    EXPECT_TRUE(loaded);
    second->reset();
    EXPECT_TRUE(file->co_close().ok());
  });
}

TEST(MetadataCache, WhatItDependsOnIsDurableFirst) {
  run_in_main_loop([]() coroutine_fn {
    const auto file = make_fault_node(numbered_disk(8));
    MetadataCache tables(*file, *file, kSlice, 4, "L2 table"), counts(*file, *file, kSlice, 4, "refcount block");
    set_byte(tables, *tables.load(slice(0)), 1);
    set_byte(counts, *counts.load(slice(4)), 2);
    ASSERT_TRUE(tables.depend_on(counts).ok());
    EXPECT_TRUE(tables.has_unsettled_dependency());
    ASSERT_TRUE(tables.write_back().ok());
    EXPECT_FALSE(tables.has_unsettled_dependency());
    const auto& log = fault_driver(*file).log();
    ASSERT_EQ(log.size(), 3u);
    EXPECT_EQ(log[0].offset, slice(4).v);
    EXPECT_EQ(log[1].op, kOpFlush);
    EXPECT_EQ(log[2].offset, slice(0).v);
    EXPECT_TRUE(file->co_close().ok());
  });
}

TEST(MetadataCache, TheDataThatItsTablesReferToAreDurableFirst) {
  run_in_main_loop([]() coroutine_fn {
    for (const bool data_elsewhere : {false, true}) {
      SCOPED_TRACE(data_elsewhere ? "data in another file" : "data in the same file");
      const auto file = make_fault_node(numbered_disk(8)), other = make_fault_node(numbered_disk(8));
      BlockNode& data = data_elsewhere ? *other : *file;
      MetadataCache tables(*file, data, kSlice, 2, "L2 table");
      ASSERT_TRUE(data.co_pwrite(slice(7).v, std::vector<std::byte>(kSlice)).ok());
      set_byte(tables, *tables.load(slice(0)), 1);
      tables.depend_on_data();
      const auto is_table = [](const LoggedIo& io) { return io.op == kOpWrite && io.offset == slice(0).v; };
      const auto& log = fault_driver(*file).log();
      // A flush that fails keeps the table back. It is also written when it has to make room.
      fault_driver(data).fail_nth_io(1, EIO, kOpFlush);
      EXPECT_FALSE(tables.write_back().ok());
      EXPECT_TRUE(std::ranges::none_of(log, is_table));
      for (const uint64_t i : {1, 2}) ASSERT_TRUE(tables.load(slice(i)).ok());
      const auto table = std::ranges::find_if(log, is_table);
      const auto flush = std::ranges::find(fault_driver(data).log(), kOpFlush, &LoggedIo::op);
      ASSERT_TRUE(table != log.end() && flush != fault_driver(data).log().end());
      EXPECT_LT(flush->time, table->time);
      EXPECT_TRUE(file->co_close().ok());
      EXPECT_TRUE(other->co_close().ok());
    }
  });
}

TEST(MetadataCache, SettingTheReverseDependencyWritesTheFirstOneOut) {
  run_in_main_loop([]() coroutine_fn {
    const auto file = make_fault_node(numbered_disk(8));
    MetadataCache tables(*file, *file, kSlice, 4, "L2 table"), counts(*file, *file, kSlice, 4, "refcount block");
    set_byte(counts, *counts.load(slice(4)), 2);
    ASSERT_TRUE(tables.depend_on(counts).ok());
    set_byte(tables, *tables.load(slice(0)), 1);
    ASSERT_TRUE(counts.depend_on(tables).ok());
    EXPECT_EQ(written_offsets(*file), std::vector<uint64_t>{slice(4).v});
    EXPECT_FALSE(tables.has_unsettled_dependency());
    set_byte(counts, *counts.load(slice(5)), 3);
    ASSERT_TRUE(counts.write_back().ok());
    EXPECT_EQ(written_offsets(*file), (std::vector<uint64_t>{slice(4).v, slice(0).v, slice(5).v}));
    EXPECT_TRUE(file->co_close().ok());
  });
}

TEST(MetadataCache, NothingIsLostWhicheverIoOfAWriteBackFails) {
  run_in_main_loop([]() coroutine_fn {
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(testing::Message() << "I/O number " << nth << " fails");
      const auto file = make_fault_node(numbered_disk(8));
      MetadataCache tables(*file, *file, kSlice, 4, "L2 table"), counts(*file, *file, kSlice, 4, "refcount block");
      set_byte(tables, *tables.load(slice(0)), 91);
      set_byte(counts, *counts.load(slice(4)), 92);
      ASSERT_TRUE(tables.depend_on(counts).ok());
      fault_driver(*file).fail_nth_io(nth, ENOSPC);
      const auto written = tables.write_back();
      const bool fired = fault_driver(*file).fired();
      fault_driver(*file).heal();
      EXPECT_EQ(written.ok(), !fired);
      if (fired) {
        EXPECT_TRUE(tables.dirty());
        ASSERT_TRUE(tables.write_back().ok());
      }
      EXPECT_EQ(fault_driver(*file).bytes()[0], std::byte(91));
      EXPECT_EQ(fault_driver(*file).bytes()[slice(4).v], std::byte(92));
      // Whatever failed, the order on disk holds.
      const auto& log = fault_driver(*file).log();
      ASSERT_EQ(log.size(), 3u);
      EXPECT_EQ(log[0].offset, slice(4).v);
      EXPECT_EQ(log[1].op, kOpFlush);
      EXPECT_TRUE(file->co_close().ok());
      if (!fired) {
        EXPECT_GT(nth, 3u);
        return;
      }
    }
  });
}

TEST(MetadataCache, AChangeDuringAWriteIsWrittenByTheNext) {
  run_in_main_loop([]() coroutine_fn {
    const auto file = yielding_node(numbered_disk(4));
    MetadataCache cache(*file, *file, kSlice, 4, "L2 table");
    auto pin = *cache.load(slice(1));
    set_byte(cache, pin, 50);
    CoGroup group;
    group.start([&]() coroutine_fn { EXPECT_TRUE(cache.write_back().ok()); });
    group.start([&]() coroutine_fn { set_byte(cache, pin, 51); });
    group.wait_all();
    EXPECT_EQ(mem_driver(*file).bytes()[slice(1).v], std::byte(50));
    EXPECT_TRUE(cache.dirty());
    ASSERT_TRUE(cache.write_back().ok());
    EXPECT_EQ(mem_driver(*file).bytes()[slice(1).v], std::byte(51));
    pin.reset();
    EXPECT_TRUE(file->co_close().ok());
  });
}

TEST(MetadataCache, ForgottenSlicesAreNotWritten) {
  run_in_main_loop([]() coroutine_fn {
    const auto file = make_fault_node(numbered_disk(8));
    MetadataCache cache(*file, *file, kSlice, 8, "L2 table");
    for (const int index : {1, 2, 3}) set_byte(cache, *cache.load(slice(index)), 99);
    cache.forget(slice(2), 2 * kSlice);
    ASSERT_TRUE(cache.write_back().ok());
    EXPECT_EQ(written_offsets(*file), std::vector<uint64_t>{slice(1).v});
    auto pin = cache.load(slice(2));
    EXPECT_EQ(pin->data()[0], std::byte(3)) << "read from the file again";
    pin->reset();
    EXPECT_TRUE(file->co_close().ok());
  });
}

TEST(MetadataCache, ForgettingWaitsForAWriteUnderWay) {
  run_in_main_loop([]() coroutine_fn {
    const auto file = yielding_node(numbered_disk(4));
    MetadataCache cache(*file, *file, kSlice, 4, "L2 table");
    set_byte(cache, *cache.load(slice(1)), 50);
    bool written = false;
    CoGroup group;
    group.start([&]() coroutine_fn {
      EXPECT_TRUE(cache.write_back().ok());
      written = true;
    });
    group.start([&]() coroutine_fn {
      cache.forget(slice(1), kSlice);
      EXPECT_TRUE(written || mem_driver(*file).bytes()[slice(1).v] == std::byte(50));
    });
    group.wait_all();
    EXPECT_TRUE(file->co_close().ok());
  });
}

TEST(MetadataCache, NewSlicesAreZeroAndDirtyWithoutARead) {
  run_in_main_loop([]() coroutine_fn {
    const auto file = make_mem_node(numbered_disk(4));
    MetadataCache cache(*file, *file, kSlice, 4, "L2 table");
    ASSERT_TRUE(cache.create_zeroed(slice(2)).ok());
    EXPECT_EQ(mem_driver(*file).counters().reads, 0u);
    ASSERT_TRUE(cache.write_back().ok());
    EXPECT_EQ(mem_driver(*file).bytes()[slice(2).v], std::byte(0));
    EXPECT_TRUE(file->co_close().ok());
  });
}

}  // namespace
}  // namespace coimg::qcow2
