// What changes an image as a whole: the last cluster, its size, its backing file, its names, its emptiness.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "formats/add_cow/header.h"
#include "tests/formats/add_cow/image_fixture.h"

namespace coimg::add_cow {
namespace {

constexpr uint64_t kCluster = 4096;

/// An image of ten and a half clusters over a backing file, its two files at hand.
class AddCowChange : public ::testing::Test {
 protected:
  void make(Below below, uint64_t size = kCluster * 10 + 2048) coroutine_fn {
    kind_ = {.cluster_size = kCluster, .below = below};
    file_ = std::make_shared<MemDisk>(create_add_cow(kind_, size));
    image_file_ = std::make_shared<MemDisk>(poison(size));
    backing_ = below == Below::kNothing ? Bytes() : pattern(below == Below::kShort ? size / 2 : size * 2, 5);
    open();
  }
  void open() coroutine_fn {
    disk_ = open_image(kind_, make_mem_node(file_), make_mem_node(image_file_), backing_);
    ASSERT_NE(disk_, nullptr);
  }
  void reopen() coroutine_fn {
    close();
    open();
  }
  void close() coroutine_fn {
    ASSERT_TRUE(disk_->co_close().ok());
    disk_.reset();
  }
  void write(uint64_t offset, uint64_t bytes) coroutine_fn {
    const auto written = disk_->co_pwrite(offset, Bytes(bytes, std::byte{0xab}));
    ASSERT_TRUE(written.ok()) << written.error().message();
  }
  Bytes read(uint64_t offset, uint64_t bytes) coroutine_fn {
    Bytes seen(bytes);
    EXPECT_TRUE(disk_->co_pread(offset, seen).ok());
    return seen;
  }
  bool flagged() const { return file_->bytes[offsetof(DiskHeader, compatible_features)] == std::byte{kAllAllocated}; }
  bool bit(uint64_t cluster) const { return test_bit_of(file_->bytes, cluster); }
  static bool test_bit_of(const Bytes& file, uint64_t cluster) {
    return (file[kCluster + cluster / 8] & static_cast<std::byte>(1U << cluster % 8)) != std::byte{0};
  }
  Header stored_header() const {
    return parse_header(std::span(file_->bytes).first(kCluster), file_->bytes.size(),
                        [](std::string_view) { return true; })
        .header;
  }

  ImageKind kind_;
  std::shared_ptr<MemDisk> file_, image_file_;
  Bytes backing_;
  std::unique_ptr<BlockNode> disk_;
};

// --- the all-allocated bit -------------------------------------------------------------------------------------------

TEST_F(AddCowChange, TheLastClusterToArriveSetsTheAllAllocatedBit) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    write(kCluster, kCluster * 9 + 1024);  // not the first one
    ASSERT_TRUE(disk_->co_flush().ok());
    EXPECT_FALSE(flagged());
    write(5, 1);
    EXPECT_FALSE(flagged()) << "before the bits are stored";
    ASSERT_TRUE(disk_->co_flush().ok());
    EXPECT_TRUE(flagged());
    for (uint64_t cluster = 0; cluster < 11; ++cluster) EXPECT_TRUE(bit(cluster)) << cluster;
    EXPECT_FALSE(bit(11));
    close();
  });
}

TEST_F(AddCowChange, TheAllAllocatedBitComesAfterAllElseIsDurable) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    close();
    auto file = make_fault_node(file_->bytes);
    auto image = make_fault_node(image_file_->bytes);
    const FaultDriver& file_log = fault_driver(*file);
    const FaultDriver& image_log = fault_driver(*image);
    disk_ = open_image(kind_, std::move(file), std::move(image), backing_);
    write(0, disk_->length());
    ASSERT_TRUE(disk_->co_flush().ok());
    // data, flush, bits, flush, header, flush
    ASSERT_EQ(image_log.log().size(), 2u);
    ASSERT_EQ(file_log.log().size(), 4u);
    EXPECT_EQ(image_log.log()[1].op, kOpFlush);
    EXPECT_LT(image_log.log()[1].time, file_log.log()[0].time);
    EXPECT_EQ(file_log.log()[0].offset, kCluster);
    EXPECT_EQ(file_log.log()[1].op, kOpFlush);
    EXPECT_EQ(file_log.log()[2].offset, offsetof(DiskHeader, compatible_features));
    EXPECT_EQ(file_log.log()[3].op, kOpFlush);
    close();
  });
}

TEST_F(AddCowChange, WithTheAllAllocatedBitNobodyLooksAtTheBitmap) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    close();
    file_->bytes[offsetof(DiskHeader, compatible_features)] = std::byte{kAllAllocated | 0xf0};
    file_->bytes.resize(kCluster);  // the bitmap is gone
    open();
    EXPECT_EQ(read_all(*disk_), image_file_->bytes);
    EXPECT_TRUE(disk_->co_info()->backing_unused);
    write(100, 5000);
    ASSERT_TRUE(disk_->co_pwrite_zeroes(8000, 5000).ok());
    EXPECT_EQ(read_all(*disk_), image_file_->bytes);
    close();
    EXPECT_EQ(file_->bytes.size(), kCluster);
    EXPECT_EQ(file_->bytes[offsetof(DiskHeader, compatible_features)], std::byte{0xf1}) << "the other bits are kept";
  });
}

TEST_F(AddCowChange, AnImageThatIsOnlyOpenedIsNotWrittenTo) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    close();
    std::fill_n(file_->bytes.begin() + kCluster, 2, std::byte{0xff});  // all there, and not said
    const Bytes before = file_->bytes;
    open();
    close();
    EXPECT_EQ(file_->bytes, before);
  });
}

// --- how it is written -----------------------------------------------------------------------------------------------

TEST_F(AddCowChange, AClusterIsCopiedInOneWrite) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    MemDriver& image = mem_driver(*disk_->data_file());
    write(kCluster + 100, 200);
    EXPECT_EQ(image.counters().writes, 1u);
    EXPECT_EQ(image.counters().bytes_written, kCluster);
    write(kCluster * 2 + 100, kCluster * 3);
    EXPECT_EQ(image.counters().writes, 2u);
    EXPECT_EQ(image.counters().bytes_written, kCluster * 5);
    write(kCluster + 300, 200);
    EXPECT_EQ(image.counters().bytes_written, kCluster * 5 + 200) << "it is there already";
    close();
  });
}

TEST_F(AddCowChange, ZerosOverZerosStayUnallocated) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);  // which ends inside cluster 5
    ASSERT_TRUE(disk_->co_pwrite_zeroes(0, disk_->length()).ok());
    ASSERT_TRUE(disk_->co_flush().ok());
    for (uint64_t cluster = 0; cluster < 11; ++cluster) EXPECT_EQ(bit(cluster), cluster <= 5) << cluster;
    EXPECT_EQ(read_all(*disk_), Bytes(disk_->length()));
    EXPECT_EQ(mem_driver(*disk_->data_file()).counters().writes, 0u);
    close();
  });
}

TEST_F(AddCowChange, ADiscardDoesNotBringTheBackingFileBack) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    write(kCluster, kCluster);
    ASSERT_TRUE(disk_->co_pdiscard(0, kCluster * 3).ok());
    reopen();
    EXPECT_EQ(read(kCluster, kCluster), Bytes(kCluster));
    EXPECT_EQ(read(0, kCluster), Bytes(backing_.begin(), backing_.begin() + kCluster)) << "nothing was stored there";
    close();
  });
}

// --- size ------------------------------------------------------------------------------------------------------------

TEST_F(AddCowChange, ALongerBackingFileDoesNotShowInNewSpace) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kLong);
    const uint64_t old = disk_->length();
    const Bytes before = read_all(*disk_);
    ASSERT_TRUE(disk_->co_truncate(old * 3).ok());
    reopen();
    ASSERT_EQ(disk_->length(), old * 3);
    EXPECT_EQ(read(0, old), before);
    EXPECT_EQ(read(old, old * 2), Bytes(old * 2));
    EXPECT_FALSE(bit(9)) << "what was there has not been copied";
    expect_sound(*disk_);
    close();
  });
}

TEST_F(AddCowChange, StaleBitsDoNotComeBack) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    close();
    std::fill_n(file_->bytes.begin() + kCluster, 4096, std::byte{0xff});
    std::fill_n(file_->bytes.begin() + kCluster, 1, std::byte{0x01});  // cluster 8 to 10 are set, and all behind
    open();
    const uint64_t old = disk_->length();
    ASSERT_TRUE(disk_->co_truncate(old * 4).ok());
    EXPECT_EQ(read(old, old * 3), Bytes(old * 3));
    reopen();
    EXPECT_EQ(read(old, old * 3), Bytes(old * 3));
    EXPECT_TRUE(bit(10));
    EXPECT_FALSE(bit(11));
    EXPECT_FALSE(bit(12));
    close();
  });
}

TEST_F(AddCowChange, BytesBehindTheLastSectorDoNotShow) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    close();
    const uint64_t size = image_file_->bytes.size();
    image_file_->bytes.resize(size + 300, std::byte{0xee});
    file_->bytes[offsetof(DiskHeader, compatible_features)] = std::byte{kAllAllocated};
    open();
    EXPECT_EQ(disk_->length(), size) << "whole sectors, rounded down";
    ASSERT_TRUE(disk_->co_truncate(size + 4096).ok());
    EXPECT_EQ(read(size, 4096), Bytes(4096));
    close();
  });
}

TEST_F(AddCowChange, ShrinkingShortensBothFilesAndClearsTheBits) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort, kCluster * 70000);  // three pages of bits
    write(kCluster * 2, kCluster * 3);
    write(kCluster * 69000, kCluster);
    ASSERT_TRUE(disk_->co_flush().ok());
    EXPECT_EQ(file_->bytes.size(), kCluster * 4);
    ASSERT_TRUE(disk_->co_truncate(kCluster * 3 + 512).ok());
    close();
    EXPECT_EQ(image_file_->bytes.size(), kCluster * 3 + 512);
    EXPECT_EQ(file_->bytes.size(), kCluster * 2);
    for (uint64_t cluster = 0; cluster < 32768; ++cluster) ASSERT_EQ(bit(cluster), cluster == 2 || cluster == 3);
  });
}

TEST_F(AddCowChange, ShrinkingToWhatIsAllocatedCompletes) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    write(0, kCluster * 2);
    ASSERT_TRUE(disk_->co_truncate(kCluster * 2).ok());
    close();
    EXPECT_TRUE(flagged());
  });
}

TEST_F(AddCowChange, ASizeOfWholeSectorsIsNeeded) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    EXPECT_EQ(disk_->co_truncate(1000).error().errnum(), EINVAL);
    close();
  });
}

// --- the backing file ------------------------------------------------------------------------------------------------

TEST_F(AddCowChange, EmptyingShowsTheBackingFile) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kLong);
    write(100, kCluster * 4);
    ASSERT_TRUE(disk_->co_flush().ok());
    ASSERT_TRUE(disk_->co_make_empty().ok());
    EXPECT_EQ(read_all(*disk_), Bytes(backing_.begin(), backing_.begin() + static_cast<ptrdiff_t>(disk_->length())));
    EXPECT_EQ(image_file_->bytes, Bytes(image_file_->bytes.size())) << "what is of no use is not kept";
    close();
    for (uint64_t cluster = 0; cluster < 11; ++cluster) EXPECT_FALSE(bit(cluster)) << cluster;
  });
}

TEST_F(AddCowChange, TheBitsAreGoneBeforeTheDataAre) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kLong);
    write(100, kCluster * 4);
    close();
    auto file = make_fault_node(file_->bytes);
    auto image = make_fault_node(image_file_->bytes);
    const FaultDriver& file_log = fault_driver(*file);
    const FaultDriver& image_log = fault_driver(*image);
    disk_ = open_image(kind_, std::move(file), std::move(image), backing_);
    ASSERT_TRUE(disk_->co_make_empty().ok());
    ASSERT_EQ(file_log.log().size(), 2u);
    EXPECT_EQ(file_log.log()[0].op, kOpZeroes);
    EXPECT_EQ(file_log.log()[1].op, kOpFlush);
    ASSERT_EQ(image_log.log().size(), 1u);
    EXPECT_EQ(image_log.log()[0].op, kOpDiscard);
    EXPECT_GT(image_log.log()[0].time, file_log.log()[1].time);
    close();
  });
}

TEST_F(AddCowChange, WithoutItsBackingFileTheImageFileIsTheDisk) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    write(kCluster * 8, 100);
    const Bytes seen = read_all(*disk_);
    ASSERT_TRUE(disk_->co_change_backing_file("", "").ok());
    close();
    EXPECT_EQ(image_file_->bytes, seen);
    EXPECT_TRUE(flagged());
    const Header header = stored_header();
    EXPECT_EQ(header.backing_file, "");
    EXPECT_EQ(header.backing_format, "");
    EXPECT_EQ(header.image_file, "image");
    EXPECT_FALSE(has_stray_bytes(std::span(file_->bytes).first(kCluster), header)) << "the old name is gone";
  });
}

TEST_F(AddCowChange, UnsafelyOnlyTheNameGoes) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    write(kCluster * 8, kCluster);
    close();
    const Bytes image_before = image_file_->bytes;
    disk_ =
        open_image(kind_, make_mem_node(file_), make_mem_node(image_file_), {}, {.writable = true, .no_backing = true});
    ASSERT_TRUE(disk_->co_change_backing_file("", "").ok());
    close();
    EXPECT_EQ(image_file_->bytes, image_before);
    EXPECT_FALSE(flagged());
    EXPECT_EQ(stored_header().backing_file, "");
  });
}

TEST_F(AddCowChange, ANewNameIsPlacedBesideTheOldOne) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    std::string name = "a/longer/name/of/a/backing/file.qcow2";
    for (int round = 0; round < 5; ++round) {
      ASSERT_TRUE(disk_->co_change_backing_file(name, "qcow2").ok());
      const Header header = stored_header();
      EXPECT_EQ(header.backing_file, name);
      EXPECT_EQ(header.backing_format, "qcow2");
      EXPECT_EQ(header.image_file, "image");
      EXPECT_FALSE(has_stray_bytes(std::span(file_->bytes).first(kCluster), header));
      name += round % 2 ? "x" : "";
    }
    EXPECT_EQ(disk_->co_change_backing_file(std::string(1024, 'x'), "raw").error().errnum(), ENAMETOOLONG);
    EXPECT_EQ(disk_->co_change_backing_file("x", "abcdefghijklmnop").error().errnum(), EINVAL);
    close();
  });
}

TEST_F(AddCowChange, ANameThatDoesNotFitChangesNothing) {
  run_in_main_loop([this]() coroutine_fn {
    kind_ = {.cluster_size = kCluster, .below = Below::kShort};
    make(Below::kShort);
    close();
    Header header = stored_header();
    header.image_file = std::string(3500, 'i');
    ASSERT_TRUE(lay_out_names(header).ok());
    std::ranges::copy(encode_header(header), file_->bytes.begin());
    open();
    const Bytes before = file_->bytes;
    EXPECT_EQ(disk_->driver().check_backing_change(std::string(600, 'x'), "raw").error().errnum(), ENOSPC);
    EXPECT_TRUE(disk_->driver().check_backing_change(std::string(400, 'x'), "raw").ok());
    EXPECT_EQ(disk_->co_change_backing_file(std::string(600, 'x'), "raw").error().errnum(), ENOSPC);
    EXPECT_EQ(file_->bytes, before);
    EXPECT_TRUE(disk_->co_change_backing_file(std::string(400, 'x'), "raw").ok());
    close();
  });
}

// Nothing keeps two names from sharing their bytes. What the image file's name needs stays when the other one goes.
TEST_F(AddCowChange, ANameThatIsAPartOfTheOtherOneSurvivesIt) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    close();
    Header header = stored_header();
    header.backing_file = "dir/image";
    header.backing_name = {100, 9};
    header.image_name = {104, 5};
    std::fill_n(file_->bytes.begin() + kNamesOffset, 100, std::byte{0});
    std::ranges::copy(encode_header(header), file_->bytes.begin());
    open();
    ASSERT_TRUE(disk_->co_change_backing_file("other", "raw").ok());
    EXPECT_EQ(stored_header().backing_file, "other");
    EXPECT_EQ(stored_header().image_file, "image");
    EXPECT_FALSE(has_stray_bytes(std::span(file_->bytes).first(kCluster), stored_header()));
    close();
  });
}

// Whenever the power goes while the name changes, one name or the other is there, whole.
TEST_F(AddCowChange, APowerCutLeavesTheOldNameOrTheNewOne) {
  run_in_main_loop([this]() coroutine_fn {
    make(Below::kShort);
    close();
    auto file = make_fault_node(file_->bytes);
    const FaultDriver& driver = fault_driver(*file);
    disk_ = open_image(kind_, std::move(file), make_mem_node(image_file_), backing_);
    ASSERT_TRUE(disk_->co_change_backing_file(std::string(900, 'n'), "qcow2").ok());
    bool old_seen = false, new_seen = false;
    for (size_t entries = 0; entries <= driver.log().size(); ++entries) {
      for (uint64_t seed = 0; seed < 20; ++seed) {
        const Bytes bytes = driver.bytes_after_crash(entries, seed);
        const ParsedHeader parsed =
            parse_header(std::span(bytes).first(kCluster), bytes.size(), [](std::string_view) { return true; });
        ASSERT_TRUE(parsed.faults.empty()) << parsed.faults.front().message();
        const bool is_old = parsed.header.backing_file == "base" && parsed.header.backing_format == "raw";
        const bool is_new =
            parsed.header.backing_file == std::string(900, 'n') && parsed.header.backing_format == "qcow2";
        ASSERT_TRUE(is_old || is_new) << parsed.header.backing_file;
        ASSERT_EQ(parsed.header.image_file, "image");
        (is_old ? old_seen : new_seen) = true;
      }
    }
    EXPECT_TRUE(old_seen && new_seen);
    close();
  });
}

}  // namespace
}  // namespace coimg::add_cow
