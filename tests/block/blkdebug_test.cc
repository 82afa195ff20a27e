// Tests block/protocol/blkdebug.cc and null.cc: requests that fail, requests that are held up, and disks without bytes.
#include "block/protocol/blkdebug.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "block/open.h"
#include "block/protocol/host_file.h"
#include "block/protocol/null.h"
#include "block/util/math.h"
#include "coroutine/co_group.h"
#include "coroutine/main_loop.h"
#include "formats/raw.h"
#include "tests/support/let_others_run.h"

namespace coimg {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class BlkdebugTest : public ::testing::Test {
 protected:
  BlkdebugTest() {
    MainLoop::init();
    registry_.add(make_file_driver_type());
    registry_.add(make_blkdebug_driver_type());
    registry_.add(make_null_co_driver_type());
    registry_.add(make_null_aio_driver_type());
    registry_.add(make_raw_driver_type());
    std::filesystem::create_directory(directory_);
    std::ofstream(path("disk")) << std::string(kMiB, 'x');
  }
  ~BlkdebugTest() override { std::filesystem::remove_all(directory_); }

  [[nodiscard]] std::string path(const std::string& name) const { return directory_ + "/" + name; }

  /// "driver=raw" over an injector with `rules` over the disk.
  [[nodiscard]] std::string image(const std::string& rules) const {
    return "driver=raw,file.driver=blkdebug,file.image.filename=" + path("disk") + (rules.empty() ? "" : "," + rules);
  }

  void with_image(const std::string& options, const std::function<void(BlockNode&)>& body) {
    run_in_main_loop([&]() coroutine_fn {
      auto opened = open_image(
          registry_, {.name = {.text = options, .is_option_string = true}, .format = {}, .flags = {.writable = true}});
      ASSERT_TRUE(opened.ok()) << opened.error().message();
      body(**opened);
      EXPECT_TRUE((*opened)->co_close().ok());
    });
  }

  std::string open_error(const std::string& name, bool is_option_string = true) {
    std::string message;
    run_in_main_loop([&]() coroutine_fn {
      auto opened = open_image(
          registry_, {.name = {.text = name, .is_option_string = is_option_string}, .format = "raw", .flags = {}});
      ASSERT_FALSE(opened.ok());
      message = opened.error().message();
    });
    return message;
  }

  static int write_errno(BlockNode& node, uint64_t offset, size_t bytes = 512) coroutine_fn {
    const std::vector<std::byte> data(bytes, std::byte{1});
    const auto written = node.co_pwrite(offset, data);
    return written.ok() ? 0 : written.error().errnum();
  }
  static int read_errno(BlockNode& node, uint64_t offset) coroutine_fn {
    std::vector<std::byte> data(512);
    const auto read = node.co_pread(offset, data);
    return read.ok() ? 0 : read.error().errnum();
  }

  DriverRegistry registry_;
  const std::string directory_ = std::filesystem::temp_directory_path() / ("blkdebug." + std::to_string(getpid()));
};

TEST_F(BlkdebugTest, RequestsFailAsTheRulesSayAndTheOthersReachTheImage) {
  with_image(image("file.inject-error.0.event=pwritev,file.inject-error.0.iotype=write,file.inject-error.0.sector=8,"
                   "file.inject-error.0.errno=28,file.inject-error.0.once=on"),
             [](BlockNode& node) coroutine_fn {
               EXPECT_EQ(write_errno(node, 0), 0);
               EXPECT_EQ(write_errno(node, 4096), ENOSPC);
               EXPECT_EQ(write_errno(node, 4096), 0);
             });
  std::ifstream disk(path("disk"), std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(disk)), std::istreambuf_iterator<char>());
  ASSERT_EQ(bytes.size(), kMiB);
  EXPECT_EQ(bytes[0], 1);
  EXPECT_EQ(bytes[511], 1);
  EXPECT_EQ(bytes[512], 'x');
  EXPECT_EQ(bytes[4096], 1);
}

TEST_F(BlkdebugTest, AnErrorThatIsNotImmediateComesAfterOthersHaveRun) {
  for (const bool immediately : {false, true}) {
    const std::string rule = "file.inject-error.0.event=none,file.inject-error.0.iotype=read";
    with_image(image(rule + (immediately ? ",file.inject-error.0.immediately=on" : "")),
               [immediately](BlockNode& node) coroutine_fn {
                 CoGroup group;
                 bool other_ran = false;
                 group.start([&other_ran]() coroutine_fn { other_ran = true; });
                 EXPECT_EQ(read_errno(node, 0), EIO);
                 EXPECT_EQ(other_ran, !immediately);
                 group.wait_all();
               });
  }
}

TEST_F(BlkdebugTest, ARequestIsHeldUpAtABreakpointUntilItIsResumed) {
  with_image(image(""), [](BlockNode& node) coroutine_fn {
    BlockDebugger* const injector = node.find_debugger();
    ASSERT_NE(injector, nullptr);
    std::vector<std::string> lines;
    injector->set_listener([&lines](std::string_view line) { lines.emplace_back(line); });
    ASSERT_TRUE(injector->add_breakpoint("pwritev", "A").ok());

    CoGroup group;
    int first = -1, second = -1;
    group.start([&]() coroutine_fn { first = write_errno(node, 0); });
    let_others_run();
    EXPECT_TRUE(injector->is_suspended("A"));
    EXPECT_EQ(injector->suspended_requests(), 1U);
    // The breakpoint was for one request.
    group.start([&]() coroutine_fn { second = write_errno(node, 4096); });
    while (second < 0) group.pause_until(Deadline::after(ClockType::kMonotonic, 1'000'000));
    EXPECT_EQ(second, 0);
    EXPECT_EQ(first, -1);

    EXPECT_EQ(injector->resume("B").error().errnum(), ENOENT);
    ASSERT_TRUE(injector->resume("A").ok());
    group.wait_all();
    EXPECT_EQ(first, 0);
    EXPECT_EQ(injector->suspended_requests(), 0U);
    EXPECT_THAT(lines, ElementsAre("blkdebug: Suspended request 'A'", "blkdebug: Resuming request 'A'"));
    injector->set_listener({});
  });
}

TEST_F(BlkdebugTest, TwoBreakpointsAtOneEventTakeTwoResumptions) {
  // Nothing but the breakpoints can hold up a request for this disk.
  with_image("driver=raw,file.driver=blkdebug,file.image.driver=null-co", [](BlockNode& node) coroutine_fn {
    BlockDebugger& injector = *node.find_debugger();
    ASSERT_TRUE(injector.add_breakpoint("pwritev", "A").ok());
    ASSERT_TRUE(injector.add_breakpoint("pwritev", "B").ok());
    CoGroup group;
    int written = -1;
    group.start([&]() coroutine_fn { written = write_errno(node, 0); });
    let_others_run();
    EXPECT_EQ(injector.suspended_requests(), 1U);
    ASSERT_TRUE(injector.resume("A").ok());
    let_others_run();
    EXPECT_EQ(written, -1);
    ASSERT_TRUE(injector.resume("B").ok());
    group.wait_all();
    EXPECT_EQ(written, 0);
  });
}

TEST_F(BlkdebugTest, RemovedBreakpointsHoldNobodyUpAndReleasingResumesAll) {
  with_image(image(""), [](BlockNode& node) coroutine_fn {
    BlockDebugger& injector = *node.find_debugger();
    EXPECT_EQ(injector.add_breakpoint("no_such_event", "A").error().errnum(), ENOENT);
    ASSERT_TRUE(injector.add_breakpoint("pwritev", "A").ok());
    ASSERT_TRUE(injector.remove_breakpoint("A").ok());
    EXPECT_EQ(injector.remove_breakpoint("A").error().errnum(), ENOENT);
    EXPECT_EQ(write_errno(node, 0), 0);

    ASSERT_TRUE(injector.add_breakpoint("pwritev", "A").ok());
    ASSERT_TRUE(injector.add_breakpoint("pwritev_done", "B").ok());
    CoGroup group;
    group.start([&]() coroutine_fn { EXPECT_EQ(write_errno(node, 0), 0); });
    let_others_run();
    EXPECT_TRUE(injector.is_suspended("A"));
    injector.release_all();  // B as well, which nobody has come to
    group.wait_all();
  });
}

TEST_F(BlkdebugTest, ReadModifyWriteComesByItsEvents) {
  for (const char* event :
       {"pwritev_rmw_head", "pwritev_rmw_after_head", "pwritev_rmw_tail", "pwritev_rmw_after_tail"}) {
    with_image(image("file.align=4096"), [event](BlockNode& node) coroutine_fn {
      BlockDebugger& injector = *node.find_debugger();
      ASSERT_TRUE(injector.add_breakpoint(event, "A").ok());
      CoGroup group;
      group.start([&]() coroutine_fn { EXPECT_EQ(write_errno(node, 100, 8192), 0); });
      while (!injector.is_suspended("A")) group.pause_until(Deadline::after(ClockType::kMonotonic, 1'000'000));
      ASSERT_TRUE(injector.resume("A").ok());
      group.wait_all();
    });
  }
}

TEST_F(BlkdebugTest, RequestsAreSplitToTheLimits) {
  // A rule for a sector that only one of the pieces has: the ones in front of it have been written.
  with_image(image("file.max-transfer=4096,file.inject-error.0.event=none,file.inject-error.0.sector=16"),
             [](BlockNode& node) coroutine_fn { EXPECT_EQ(write_errno(node, 0, 16384), EIO); });
  std::ifstream disk(path("disk"), std::ios::binary);
  std::string bytes(16384, '\0');
  disk.read(bytes.data(), 16384);
  EXPECT_EQ(bytes[8191], 1);
  EXPECT_EQ(bytes[8192], 'x');
}

TEST_F(BlkdebugTest, WhatCannotBeOpenedIsSaid) {
  EXPECT_THAT(open_error("blkdebug:" + path("disk"), false), HasSubstr("requires both config file and image path"));
  EXPECT_THAT(open_error("blkdebug:/nowhere:" + path("disk"), false), HasSubstr("Could not read blkdebug config file"));
  EXPECT_THAT(open_error("blkdebug:/dev/zero:" + path("disk"), false), HasSubstr("File too large"));
  EXPECT_THAT(open_error(image("file.inject-error.0.event=l3_load")), HasSubstr("invalid parameter value: l3_load"));
  EXPECT_THAT(open_error(image("file.align=2M")), HasSubstr("Cannot meet constraints with align 2097152"));
  EXPECT_THAT(open_error(image("file.inject-error.0.event=none,file.inject-error.0.state=-1")),
              HasSubstr("expects a number"));
  EXPECT_THAT(open_error("null-co://x", false), HasSubstr("The only allowed filename"));
  std::string nested = path("disk");
  for (int i = 0; i < 1000; ++i) nested.insert(0, "blkdebug::");
  EXPECT_THAT(open_error(nested, false), HasSubstr("nested too deep"));
}

TEST_F(BlkdebugTest, ANullDiskKeepsNothing) {
  for (const char* driver : {"null-co", "null-aio"}) {
    with_image(std::string("driver=") + driver + ",size=1M", [](BlockNode& node) coroutine_fn {
      EXPECT_EQ(node.length(), kMiB);
      EXPECT_EQ(write_errno(node, 0), 0);
      std::vector<std::byte> memory(512, std::byte{0xab});
      ASSERT_TRUE(node.co_pread(0, memory).ok());
      EXPECT_EQ(memory, std::vector<std::byte>(512, std::byte{0xab}));
      EXPECT_EQ(write_errno(node, kMiB), ENOSPC);
    });
    with_image(std::string("driver=") + driver + ",size=1M,read-zeroes=on", [](BlockNode& node) coroutine_fn {
      std::vector<std::byte> memory(512, std::byte{0xab});
      ASSERT_TRUE(node.co_pread(0, memory).ok());
      EXPECT_EQ(memory, std::vector<std::byte>(512));
    });
  }
}

TEST_F(BlkdebugTest, ANullDiskTakesTheTimeThatItIsTold) {
  with_image("driver=null-co,size=1M,latency-ns=20000000", [](BlockNode& node) coroutine_fn {
    const int64_t start = clock_now_ns(ClockType::kMonotonic);
    EXPECT_EQ(write_errno(node, 0), 0);
    EXPECT_GE(clock_now_ns(ClockType::kMonotonic) - start, 20'000'000);
  });
}

}  // namespace
}  // namespace coimg
