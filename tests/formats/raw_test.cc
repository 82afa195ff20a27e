// Tests formats/raw.cc.
#include "formats/raw.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "block/node.h"
#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "tests/support/fault_driver.h"
#include "tests/support/mem_driver.h"

namespace coimg {
namespace {

class RawTest : public ::testing::Test {
 protected:
  Result<std::unique_ptr<BlockNode>> open(std::unique_ptr<BlockNode> file, const std::string& options = {})
      coroutine_fn {
    return open_format(*raw_, std::move(file), {.writable = true},
                       options.empty() ? Options() : *parse_key_value_options(options));
  }
  /// The message of the error with which opening a file of 4096 bytes ends.
  std::string open_error(const std::string& options) coroutine_fn {
    auto node = open(make_mem_node(std::vector<std::byte>(4096)), options);
    if (!node.ok()) return node.error().message();
    close(**node);
    return "opened";
  }
  static void close(BlockNode& node) coroutine_fn { EXPECT_TRUE(node.co_close().ok()); }

  CreateOptions create_options(const std::string& list) const {
    auto specs = raw_->create_options();
    specs.push_back({.name = "preallocation", .type = OptionType::kText, .help = "as the file protocol has it"});
    CreateOptions options(std::move(specs));
    EXPECT_TRUE(list.empty() || options.parse(list).ok());
    return options;
  }

  const std::unique_ptr<DriverType> raw_ = make_raw_driver_type();
};

TEST_F(RawTest, TheDiskIsTheFile) {
  run_in_main_loop([&]() coroutine_fn {
    auto disk = std::make_shared<MemDisk>(pattern(4096));
    auto node = open(make_mem_node(disk));
    ASSERT_TRUE(node.ok());
    EXPECT_EQ((*node)->length(), 4096u);
    EXPECT_EQ(read_all(**node), pattern(4096));
    EXPECT_TRUE((*node)->co_pwrite(10, pattern(5, 2)).ok());
    EXPECT_TRUE((*node)->co_pwrite_zeroes(20, 5).ok());
    auto expected = pattern(4096);
    std::ranges::copy(pattern(5, 2), expected.begin() + 10);
    std::fill_n(expected.begin() + 20, 5, std::byte{0});
    EXPECT_EQ(disk->bytes, expected);
    close(**node);
  });
}

TEST_F(RawTest, AWindowShowsAPartOfTheFileAndTouchesNothingElse) {
  run_in_main_loop([&]() coroutine_fn {
    const auto before = pattern(16384);
    auto disk = std::make_shared<MemDisk>(before);
    auto node = open(make_mem_node(disk), "offset=1000,size=8k");
    ASSERT_TRUE(node.ok());
    EXPECT_EQ((*node)->length(), 8192u);
    EXPECT_TRUE(std::ranges::equal(read_all(**node), std::span(before).subspan(1000, 8192)));
    EXPECT_TRUE((*node)->co_pwrite(0, pattern(8192, 2)).ok());
    EXPECT_TRUE((*node)->co_pwrite_zeroes(4096, 4096).ok());
    EXPECT_TRUE((*node)->co_pdiscard(0, 8192).ok());
    EXPECT_TRUE(std::equal(before.begin(), before.begin() + 1000, disk->bytes.begin()));
    EXPECT_TRUE(std::equal(before.begin() + 9192, before.end(), disk->bytes.begin() + 9192));

    auto resized = (*node)->co_truncate(4096);
    ASSERT_FALSE(resized.ok());
    EXPECT_EQ(resized.error().message(), "Cannot resize fixed-size raw disks");
    close(**node);
  });
}

TEST_F(RawTest, AWindowWithoutSizeReachesToTheEndAndCanGrow) {
  run_in_main_loop([&]() coroutine_fn {
    auto disk = std::make_shared<MemDisk>(pattern(4096));
    auto node = open(make_mem_node(disk), "offset=1024");
    ASSERT_TRUE(node.ok());
    EXPECT_EQ((*node)->length(), 3072u);
    EXPECT_TRUE((*node)->co_truncate(8192).ok());
    EXPECT_EQ(disk->bytes.size(), 9216u);
    EXPECT_EQ((*node)->length(), 8192u);
    close(**node);
  });
}

TEST_F(RawTest, RefusesAWindowThatIsNotInTheFile) {
  run_in_main_loop([&]() coroutine_fn {
    EXPECT_EQ(open_error("offset=4096"), "opened");
    EXPECT_EQ(open_error("size=4096"), "opened");
    EXPECT_EQ(open_error("size=0"), "opened");
    EXPECT_EQ(open_error("offset=4097"), "Offset (4097) cannot be greater than size of the containing file (4096)");
    EXPECT_EQ(open_error("offset=512,size=4k"),
              "The sum of offset (512) and size (4096) has to be smaller or equal to the  actual size of the "
              "containing file (4096)");
    EXPECT_EQ(open_error("offset=512,size=18446744073709551615"),
              "The sum of offset (512) and size (18446744073709551615) has to be smaller or equal to the  actual size "
              "of the containing file (4096)");
    EXPECT_EQ(open_error("size=1000"), "Specified size is not multiple of 512");
    EXPECT_NE(open_error("size=many"), "opened");
  });
}

TEST_F(RawTest, TheStatusIsTheFilesWithAllOfItAllocated) {
  run_in_main_loop([&]() coroutine_fn {
    auto content = pattern(3 * 4096 + 100);
    std::fill(content.begin() + 4096, content.begin() + 8192, std::byte{0});
    auto node = open(make_mem_node(content), "offset=512");
    ASSERT_TRUE(node.ok());
    const BlockNode* file = (*node)->file();

    struct Expected {
      uint64_t bytes;
      bool data;
    };
    uint64_t offset = 0;
    for (const Expected& e :
         {Expected{3584, true}, Expected{4096, false}, Expected{4196, true}, Expected{412, false}}) {
      auto found = (*node)->co_chain_status(offset, UINT64_MAX);
      ASSERT_TRUE(found.ok());
      EXPECT_EQ(found->status.bytes, e.bytes);
      EXPECT_TRUE(found->status.allocated);
      EXPECT_EQ(found->status.data, e.data);
      EXPECT_EQ(found->status.zero, !e.data);
      EXPECT_EQ(found->status.host_offset, offset + 512);
      EXPECT_EQ(found->status.file, file);
      EXPECT_EQ(found->depth, 0u);
      offset += e.bytes;
    }
    EXPECT_EQ(offset, (*node)->length());
    close(**node);
  });
}

TEST_F(RawTest, CreateMakesTheFileExactlyAsLongAsTheDisk) {
  run_in_main_loop([&]() coroutine_fn {
    auto disk = std::make_shared<MemDisk>();
    auto file = make_mem_node(disk);
    EXPECT_TRUE(raw_->create(file.get(), "mem", create_options("size=1025")).ok());
    EXPECT_EQ(disk->bytes.size(), 1536u);
    EXPECT_TRUE(raw_->create(file.get(), "mem", create_options("size=0")).ok());
    EXPECT_EQ(disk->bytes.size(), 0u);
    close(*file);
  });
}

TEST_F(RawTest, BadCreateOptionsAreFoundBeforeAnythingIsTouched) {
  EXPECT_TRUE(raw_->validate_create(create_options("size=1M,preallocation=falloc")).ok());
  EXPECT_TRUE(raw_->validate_create(create_options("size=1M,preallocation=full")).ok());
  EXPECT_EQ(raw_->validate_create(create_options("size=1M,preallocation=metadata")).error().message(),
            "Unsupported preallocation mode: metadata");
  EXPECT_EQ(raw_->validate_create(create_options("size=1M,preallocation=x")).error().message(),
            "invalid parameter value: x");
  EXPECT_EQ(raw_->validate_create(create_options("size=9223372036854775807")).error().message(),
            "The image size is too large for file format 'raw'");
}

TEST_F(RawTest, ASizeBeyondTheFileSystemsLimitIsAnErrorOfTheHost) {
  run_in_main_loop([&]() coroutine_fn {
    auto file = make_fault_node(std::vector<std::byte>());
    fault_driver(*file).fail_nth_io(1, EFBIG);
    auto created = raw_->create(file.get(), "fault", create_options("size=7E"));
    ASSERT_FALSE(created.ok());
    EXPECT_EQ(created.error().errnum(), EFBIG);
    close(*file);
  });
}

TEST_F(RawTest, MeasuresWholeSectors) {
  run_in_main_loop([&]() coroutine_fn {
    auto measured = raw_->measure(create_options(""), {.virtual_size = 513});
    ASSERT_TRUE(measured.ok());
    EXPECT_EQ(measured->required, 1024u);
    EXPECT_EQ(measured->fully_allocated, 1024u);
    EXPECT_FALSE(raw_->measure(create_options(""), {.virtual_size = UINT64_MAX}).ok());
  });
}

TEST_F(RawTest, SharesItsFileUnlessItIsTheSourceOfAConversion) {
  auto used = [&](const OpenFlags& flags) { return raw_->file_permissions(flags).used; };
  EXPECT_EQ(used({.no_io = true}), 0u);
  EXPECT_EQ(used({}), kPermConsistentRead);
  EXPECT_EQ(used({.writable = true}), kPermConsistentRead | kPermWrite);
  EXPECT_EQ(used({.writable = true, .resizable = true}), kPermConsistentRead | kPermWrite | kPermResize);
  EXPECT_EQ(used({.force_share = true}), 0u);
  EXPECT_EQ(raw_->file_permissions({.writable = true}).shared, unsigned{kPermAll});
  EXPECT_EQ(raw_->file_permissions({.exclusive_source = true}).shared, kPermConsistentRead | kPermWriteUnchanged);
}

TEST_F(RawTest, NeverClaimsToRecogniseAnImage) {
  EXPECT_EQ(raw_->probe({}), 0);
  EXPECT_EQ(raw_->probe(pattern(2048)), 0);
}

}  // namespace
}  // namespace coimg
