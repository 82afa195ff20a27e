// Tests qcow2.cc, mapping.cc, read.cc and read_compressed.cc on images made byte by byte.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "block/open.h"
#include "block/warnings.h"
#include "coroutine/main_loop.h"
#include "formats/qcow2/compressed.h"
#include "tests/formats/qcow2/image_bytes.h"
#include "tests/formats/qcow2/image_fixture.h"

namespace coimg::qcow2 {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

constexpr OpenFlags kReadOnly{};
constexpr uint64_t kCluster = 4096;

std::string warnings;

/// Collects warnings while it lives.
class WarningCollector {
 public:
  WarningCollector() {
    warnings.clear();
    set_warning_sink([](std::string_view, const std::string& lines) { warnings += lines; });
  }
  ~WarningCollector() { set_warning_sink(nullptr); }
};

/// An image of ImageBytes in memory.
struct Disk {
  explicit Disk(const ImageBytes& image) : medium(std::make_shared<MemDisk>(image.bytes)) {}
  std::unique_ptr<BlockNode> open(OpenFlags flags = kReadOnly, const std::vector<std::byte>& backing = {}) const
      coroutine_fn {
    return open_image(make_mem_node(medium, {}, {.writable = flags.writable}), backing, flags);
  }
  Error refusal(OpenFlags flags) const coroutine_fn {
    auto image = open_format(qcow2_type(), make_mem_node(medium, {}, {.writable = flags.writable}), flags);
    if (!image.ok()) return image.error();
    EXPECT_TRUE((*image)->co_close().ok());
    return {0, "none"};
  }
  [[nodiscard]] Header header() const { return *parse_header(medium->bytes, {}); }
  std::shared_ptr<MemDisk> medium;
};

void close(const std::unique_ptr<BlockNode>& image) coroutine_fn {
  const auto closed = image->co_close();
  EXPECT_TRUE(closed.ok()) << closed.error().message();
}

std::vector<std::byte> read(BlockNode& image, uint64_t offset, uint64_t bytes) coroutine_fn {
  std::vector<std::byte> memory(bytes, std::byte{0xee});
  const auto result = image.co_pread(offset, memory);
  EXPECT_TRUE(result.ok()) << result.error().message();
  return memory;
}

Error read_error(BlockNode& image, uint64_t offset) coroutine_fn {
  std::vector<std::byte> memory(512);
  auto result = image.co_pread(offset, memory);
  return result.ok() ? Error(0, "none") : result.error();
}

// --- mapping -------------------------------------------------------------------------------------------------------

TEST(ReadTest, NeighbouringClustersAreReadAtOnce) {
  run_in_main_loop([]() coroutine_fn {
    const Disk disk(ImageBytes({}));
    const auto image = disk.open();
    const uint64_t before = mem_driver(*image->file()).counters().reads;
    const auto bytes = read(*image, 100, 8 * kCluster - 200);
    EXPECT_EQ(mem_driver(*image->file()).counters().reads - before, 2u) << "one L2 slice, one run of data";
    EXPECT_EQ(bytes.front(), std::byte{'a'});
    EXPECT_EQ(bytes[kCluster - 100], std::byte{'b'});
    EXPECT_EQ(bytes.back(), std::byte{'h'});
    EXPECT_EQ(mem_driver(*image->file()).counters().writes, 0u);
    close(image);
  });
}

TEST(ReadTest, EachKindOfClusterReadsAsItShould) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes bytes({});
    bytes.put64(bytes.l2_entry_at(1), 0);
    bytes.put64(bytes.l2_entry_at(2), kL2Zero);
    bytes.put64(bytes.l2_entry_at(3), bytes.get64(bytes.l2_entry_at(3)) | kL2Zero);
    bytes.put64(bytes.l2_entry_at(4), 0x100000);  // behind the end of the file
    bytes.put64(bytes.l2_entry_at(5), bytes.get64(bytes.l2_entry_at(5)) | 0x1e | kEntryCopied);  // reserved bits
    const Disk disk(bytes);
    const std::vector<std::byte> backing(2 * kCluster + 512, std::byte{'B'});
    const auto image = disk.open(kReadOnly, backing);
    EXPECT_THAT(read(*image, 0, kCluster), Each(std::byte{'a'}));
    EXPECT_THAT(read(*image, kCluster, kCluster), Each(std::byte{'B'}));
    EXPECT_THAT(read(*image, 2 * kCluster, 3 * kCluster), Each(std::byte{0})) << "also where the backing file has data";
    EXPECT_THAT(read(*image, 5 * kCluster, kCluster), Each(std::byte{'f'}));
    EXPECT_THAT(read(*image, 8 * kCluster, 56 * kCluster), Each(std::byte{0})) << "behind the backing file's end";
    close(image);
  });
}

TEST(ReadTest, ABackingFileMayEndInsideACluster) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes bytes({});
    bytes.put64(bytes.l2_entry_at(1), 0);
    const auto image = Disk(bytes).open(kReadOnly, std::vector<std::byte>(kCluster + 1024, std::byte{'B'}));
    const auto seen = read(*image, kCluster, kCluster);
    EXPECT_THAT(std::span(seen).first(1024), Each(std::byte{'B'}));
    EXPECT_THAT(std::span(seen).subspan(1024), Each(std::byte{0}));
    close(image);
  });
}

struct StatusCase {
  uint64_t first, clusters;
  bool allocated, data, zero;
  std::optional<uint64_t> host;
};

TEST(BlockStatusTest, JoinsWhatHasTheSameAnswer) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes bytes({});
    bytes.put64(bytes.l2_entry_at(2), 0);
    bytes.put64(bytes.l2_entry_at(3), kEntryCopied);
    bytes.put64(bytes.l2_entry_at(4), kL2Zero);
    bytes.put64(bytes.l2_entry_at(5), bytes.get64(bytes.l2_entry_at(5)) | kL2Zero);
    bytes.put64(bytes.l2_entry_at(6), kL2Compressed | bytes.offset_of(5));
    const auto image = Disk(bytes).open();
    uint64_t offset = 0;
    for (const auto& [first, clusters, allocated, data, zero, host] : {
             StatusCase{0, 2, true, true, false, bytes.offset_of(5)},
             StatusCase{2, 2, false, false, false, {}},
             StatusCase{4, 1, true, false, true, {}},
             StatusCase{5, 1, true, false, true, bytes.offset_of(10)},
             StatusCase{6, 1, true, true, false, {}},
             StatusCase{7, 1, true, true, false, bytes.offset_of(12)},
             StatusCase{8, 56, false, false, false, {}},
         }) {
      SCOPED_TRACE(first);
      ASSERT_EQ(offset, first * kCluster);
      const auto status = image->co_block_status(offset, image->length() - offset);
      ASSERT_TRUE(status.ok());
      EXPECT_EQ(status->bytes, clusters * kCluster);
      EXPECT_EQ(status->allocated, allocated);
      EXPECT_EQ(status->data, data);
      EXPECT_EQ(status->zero, zero);
      EXPECT_EQ(status->compressed, first == 6);
      EXPECT_EQ(status->host_offset, host);
      offset += status->bytes;
    }
    const auto inside = image->co_block_status(100, 50);
    EXPECT_EQ(inside->bytes, 50u);
    EXPECT_EQ(inside->host_offset, bytes.offset_of(5) + 100);
    close(image);
  });
}

// --- compressed clusters -------------------------------------------------------------------------------------------

/// An image whose clusters 0 and 1 are compressed, back to back in the file's last cluster.
ImageBytes with_compressed_clusters(const std::vector<std::byte>& content) {
  ImageBytes bytes({});
  uint64_t position = bytes.offset_of(12) + 100;
  for (uint64_t i = 0; i < 2; ++i) {
    std::vector<std::byte> stream(kCluster);
    const auto cluster = std::span(content).subspan(i * kCluster, kCluster);
    const size_t length = compress_cluster(CompressionType::kZlib, 0, cluster, stream)->value();
    std::copy_n(stream.begin(), length, bytes.bytes.begin() + static_cast<ptrdiff_t>(position));
    bytes.put64(bytes.l2_entry_at(i), L2Entry::compressed(bytes.geometry, HostOffset(position), length).raw());
    position += length;
  }
  return bytes;
}

std::vector<std::byte> compressible() {
  std::vector<std::byte> content(2 * kCluster);
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<std::byte>(i / 7 % 251);
  return content;
}

TEST(ReadTest, CompressedClustersInAllPieces) {
  run_in_main_loop([]() coroutine_fn {
    const std::vector<std::byte> content = compressible();
    for (const bool writable : {false, true}) {
      const auto image = Disk(with_compressed_clusters(content)).open({.writable = writable});
      EXPECT_EQ(read(*image, 0, 2 * kCluster), content);
      for (const uint64_t offset : {0u, 1u, 511u, 4095u, 4096u, 8000u}) {
        const auto piece = read(*image, offset, 100);
        EXPECT_TRUE(std::ranges::equal(piece, std::span(content).subspan(offset, 100))) << offset;
      }
      EXPECT_THAT(read(*image, 2 * kCluster, 10), Each(std::byte{'c'}));
      close(image);
    }
  });
}

TEST(ReadTest, ACompressedClusterThatIsReadInPartsIsDecodedOnce) {
  run_in_main_loop([]() coroutine_fn {
    const auto image = Disk(with_compressed_clusters(compressible())).open();
    read(*image, 0, 512);
    const uint64_t before = mem_driver(*image->file()).counters().reads;
    for (uint64_t offset = 512; offset < kCluster; offset += 512) read(*image, offset, 512);
    EXPECT_EQ(mem_driver(*image->file()).counters().reads, before);
    close(image);
  });
}

constexpr uint64_t kLargeCluster = 65536;

std::vector<std::byte> large_content(uint64_t clusters) {
  std::vector<std::byte> content(clusters * kLargeCluster);
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<std::byte>(i / 7 % 251 + i / kLargeCluster);
  return content;
}

/// An image of 64 KiB clusters; those from 0 on are compressed, and their streams lie at `offsets`.
ImageBytes with_streams_at(const std::vector<uint64_t>& offsets) {
  ImageBytes bytes({.cluster_bits = 16});
  bytes.bytes.resize(std::ranges::max(offsets) + kLargeCluster);
  const std::vector<std::byte> content = large_content(offsets.size());
  for (size_t i = 0; i < offsets.size(); ++i) {
    std::vector<std::byte> stream(kLargeCluster);
    const auto cluster = std::span(content).subspan(i * kLargeCluster, kLargeCluster);
    const size_t length = compress_cluster(CompressionType::kZlib, 0, cluster, stream)->value();
    std::copy_n(stream.begin(), length, bytes.bytes.begin() + static_cast<ptrdiff_t>(offsets[i]));
    bytes.put64(bytes.l2_entry_at(i), L2Entry::compressed(bytes.geometry, HostOffset(offsets[i]), length).raw());
  }
  return bytes;
}

struct StreamsCase {
  std::vector<uint64_t> offsets;
  uint64_t reads;
};

TEST(ReadTest, CompressedClustersThatLieCloseAreReadAtOnce) {
  constexpr uint64_t kFirst = ImageBytes::kData * kLargeCluster;
  const StreamsCase cases[] = {
      {{kFirst, kFirst + 10000, kFirst + 20000, kFirst + 30000}, 1},
      {{kFirst + 20000, kFirst, kFirst + 30000, kFirst + 10000}, 1},    // in another order
      {{kFirst, kFirst + 60000, kFirst + 110000, kFirst + 170000}, 1},  // with gaps
      {{kFirst, kFirst + 10000, kFirst + 100000, kFirst + 110000}, 2},  // with one too large
      {{kFirst + 100000, kFirst + 110000, kFirst, kFirst + 10000}, 2},
      {{kFirst, kFirst + 130000, kFirst + 260000, kFirst + 390000}, 4},
      {{kFirst, kFirst + 60000, kFirst + 120000, kFirst + 180000, kFirst + 240000, kFirst + 300000, kFirst + 360000,
        kFirst + 420000, kFirst + 480000, kFirst + 540000},
       2},  // more than what is read at once
  };
  run_in_main_loop([&]() coroutine_fn {
    for (const auto& [offsets, reads] : cases) {
      SCOPED_TRACE(::testing::PrintToString(offsets));
      const auto image = Disk(with_streams_at(offsets)).open();
      const std::vector<std::byte> expected = large_content(offsets.size());
      read(*image, offsets.size() * kLargeCluster, 1);  // the mapping is in memory from here on
      const uint64_t before = mem_driver(*image->file()).counters().reads;
      EXPECT_EQ(read(*image, 0, offsets.size() * kLargeCluster), expected);
      EXPECT_EQ(mem_driver(*image->file()).counters().reads - before, reads);
      EXPECT_TRUE(std::ranges::equal(read(*image, 1000, kLargeCluster * 2),
                                     std::span(expected).subspan(1000, kLargeCluster * 2)));
      close(image);
    }
  });
}

TEST(ReadTest, ABadSectorBetweenCompressedClustersHarmsNobody) {
  constexpr uint64_t kFirst = ImageBytes::kData * kLargeCluster;
  constexpr uint64_t kSecond = kFirst + 60000;
  for (const uint64_t bad : {kFirst + 30000, kSecond + 100}) {  // nobody's, and the second one's
    run_in_main_loop([&]() coroutine_fn {
      const Disk disk(with_streams_at({kFirst, kSecond}));
      const auto image = disk.open();
      read(*image, 2 * kLargeCluster, 1);
      disk.medium->bad_byte = bad;
      std::vector<std::byte> memory(2 * kLargeCluster);
      const auto outcome = image->co_pread(0, memory);
      if (bad < kSecond) {
        EXPECT_TRUE(outcome.ok());
        EXPECT_EQ(memory, large_content(2));
      } else {
        ASSERT_FALSE(outcome.ok());
        EXPECT_EQ(outcome.error().errnum(), EIO);
        EXPECT_THAT(outcome.error().message(), HasSubstr("guest offset 0x10000, host offset 0x5ea60"));
      }
      disk.medium->bad_byte.reset();
      close(image);
    });
  }
}

TEST(ReadTest, GarbageAmongCompressedClustersIsAnErrorOfThatCluster) {
  run_in_main_loop([]() coroutine_fn {
    constexpr uint64_t kFirst = ImageBytes::kData * kLargeCluster;
    ImageBytes bytes = with_streams_at({kFirst, kFirst + 20000, kFirst + 40000});
    std::fill_n(bytes.bytes.begin() + kFirst + 20000, 100, std::byte{0xff});
    const auto image = Disk(bytes).open();
    std::vector<std::byte> memory(3 * kLargeCluster);
    const auto outcome = image->co_pread(0, memory);
    ASSERT_FALSE(outcome.ok());
    EXPECT_EQ(outcome.error().errnum(), EIO);
    EXPECT_THAT(outcome.error().message(), HasSubstr("guest offset 0x10000, host offset 0x54e20"));
    close(image);
  });
}

TEST(ReadTest, GarbageInACompressedClusterIsAnErrorOfThatCluster) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes bytes({});
    bytes.put64(bytes.l2_entry_at(0), kL2Compressed | bytes.offset_of(5));
    bytes.put64(bytes.l2_entry_at(1), kL2Compressed | 0x7f0000000000);  // behind the end: zeros do not decode
    const auto image = Disk(bytes).open({.writable = true});
    EXPECT_EQ(read_error(*image, 0).errnum(), EIO);
    EXPECT_THAT(read_error(*image, 0).message(), HasSubstr("guest offset 0x0, host offset 0x5000"));
    EXPECT_EQ(read_error(*image, kCluster).errnum(), EIO);
    EXPECT_THAT(read(*image, 2 * kCluster, kCluster), Each(std::byte{'c'}));
    close(image);
  });
}

// --- damage --------------------------------------------------------------------------------------------------------

struct DamageCase {
  const char* reason;
  uint32_t version;
  std::function<void(ImageBytes&)> damage;
};

TEST(DamageTest, IsReportedOnceAndMarkedWhenWritable) {
  const DamageCase cases[] = {
      {"L2 table offset 0x4200 unaligned (L1 index: 0)", 3,
       [](ImageBytes& b) { b.put64(b.offset_of(ImageBytes::kL1), 0x4200); }},
      {"Cluster allocation offset 0x5200 unaligned (L2 offset: 0x4000, L2 index: 0)", 3,
       [](ImageBytes& b) { b.put64(b.l2_entry_at(0), 0x5200); }},
      {"Cluster allocation offset 0x5200 unaligned (L2 offset: 0x4000, L2 index: 0)", 3,
       [](ImageBytes& b) { b.put64(b.l2_entry_at(0), 0x5201); }},
      {"Zero cluster entry found in pre-v3 image (L2 offset: 0x4000, L2 index: 0)", 2,
       [](ImageBytes& b) { b.put64(b.l2_entry_at(0), 1); }},
  };
  for (const auto& [reason, version, damage] : cases) {
    SCOPED_TRACE(reason);
    ImageBytes bytes({.version = version});
    damage(bytes);
    const WarningCollector collector;
    run_in_main_loop([&]() coroutine_fn {
      const Disk disk(bytes);
      auto image = disk.open();
      EXPECT_EQ(read_error(*image, 0).errnum(), EIO);
      EXPECT_EQ(read_error(*image, 0).errnum(), EIO);
      EXPECT_EQ(warnings, fmt::format("qcow2: Image is corrupt: {}; further non-fatal corruption events will be "
                                      "suppressed\n",
                                      reason));
      close(image);
      EXPECT_EQ(disk.medium->bytes, bytes.bytes);

      warnings.clear();
      image = disk.open({.writable = true});
      EXPECT_EQ(read_error(*image, 0).errnum(), EIO);
      EXPECT_EQ(disk.header().incompatible_features & kCorrupt, version == 2 ? 0 : uint64_t{kCorrupt});
      EXPECT_EQ(read_error(*image, 40 * kCluster).errnum(), EIO) << "nothing works any more";
      EXPECT_EQ(
          warnings,
          fmt::format("qcow2: Marking image as corrupt: {}; further corruption events will be suppressed\n", reason));
      (void)image->co_close().ok();
      EXPECT_EQ(disk.header().incompatible_features & kCorrupt, version == 2 ? 0 : uint64_t{kCorrupt});
      if (version == 3) {
        EXPECT_EQ(disk.refusal({.writable = true}).message(), "qcow2: Image is corrupt; cannot be opened read/write");
        EXPECT_EQ(disk.refusal({.writable = true}).errnum(), EACCES);
        EXPECT_EQ(disk.refusal({.writable = true, .check = true}).message(), "none");
        EXPECT_EQ(disk.refusal(kReadOnly).message(), "none");
      }
    });
  }
}

TEST(DamageTest, AnL1TableBehindTheEndIsUnallocated) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes bytes({});
    bytes.put64(40, 0x10000000);
    const auto image = Disk(bytes).open();
    EXPECT_THAT(read(*image, 0, kCluster), Each(std::byte{0}));
    close(image);
  });
}

TEST(DamageTest, ARefcountTableBehindTheEndIsForReadersAndCheckOnly) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes bytes({});
    bytes.put64(48, 0x10000000);
    const Disk disk(bytes);
    EXPECT_EQ(disk.refusal(kReadOnly).message(), "none");
    EXPECT_EQ(disk.refusal({.writable = true, .check = true}).message(), "none");
    EXPECT_THAT(disk.refusal({.writable = true}).message(), HasSubstr("beyond the end of the file"));
    EXPECT_EQ(disk.medium->bytes, bytes.bytes);
  });
}

// --- opening -------------------------------------------------------------------------------------------------------

TEST(OpenTest, FeaturesThatAreMissingHereAreNamed) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes bytes({.cluster_bits = 14});
    bytes.put32(32, 1);
    EXPECT_EQ(Disk(bytes).refusal(kReadOnly).message(), "encryption method aes is not supported");
    EXPECT_EQ(Disk(bytes).refusal({.no_io = true}).message(), "none");
  });
}

TEST(OpenTest, WritersClearWhatTheyDoNotMaintain) {
  const WarningCollector collector;
  run_in_main_loop([]() coroutine_fn {
    ImageBytes bytes({});
    bytes.put64(88, uint64_t{1} << 40 | kBitmapsValid);  // autoclear features
    bytes.put32(112, 0x1234);                            // an unknown extension
    bytes.put32(116, 5);
    bytes.put64(80, uint64_t{1} << 50);  // a compatible feature
    const Disk disk(bytes);
    close(disk.open());
    EXPECT_EQ(disk.medium->bytes, bytes.bytes) << "a reader changes nothing";
    close(disk.open({.writable = true}));
    const Header header = disk.header();
    EXPECT_EQ(header.autoclear_features, 0u);
    EXPECT_EQ(header.compatible_features, uint64_t{1} << 50);
    ASSERT_EQ(header.unknown_extensions.size(), 1u);
    EXPECT_EQ(header.unknown_extensions[0].type, 0x1234u);
  });
}

TEST(OpenTest, ADirtyImageIsRepairedByWritersOnly) {
  const WarningCollector collector;
  run_in_main_loop([]() coroutine_fn {
    ImageBytes bytes({});
    bytes.put64(72, kDirty);
    bytes.set_refcount(ImageBytes::kData, 0);
    const Disk disk(bytes);
    close(disk.open());
    EXPECT_EQ(disk.medium->bytes, bytes.bytes);
    const auto image = disk.open({.writable = true});
    EXPECT_EQ(disk.header().incompatible_features, 0u);
    expect_sound(*image);
    close(image);
  });
}

TEST(OpenTest, APartOfASectorAtTheEndIsNotShown) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes bytes({});
    bytes.put64(24, 5 * kCluster + 700);
    const auto image = Disk(bytes).open();
    EXPECT_EQ(image->length(), 5 * kCluster + 512);
    close(image);
  });
}

// Whatever byte of the metadata is wrong: an error, or bytes; and never a write by a reader.
TEST(OpenTest, SurvivesDamageAnywhereInTheMetadata) {
  const WarningCollector collector;
  run_in_main_loop([]() coroutine_fn {
    const ImageBytes sound({.cluster_bits = 9, .snapshot = true});
    for (size_t at = 0; at < sound.offset_of(ImageBytes::kData); ++at) {
      ImageBytes bytes = sound;
      bytes.bytes[at] ^= std::byte{0xff};
      const Disk disk(bytes);
      auto image = open_format(qcow2_type(), make_mem_node(disk.medium, {}, {}), kReadOnly);
      if (!image.ok()) continue;
      std::vector<std::byte> memory(64 * 512);
      if (memory.size() <= (*image)->length()) (void)(*image)->co_pread(0, memory).ok();
      (void)(*image)->co_block_status(0, std::max<uint64_t>((*image)->length(), 512)).ok();
      (void)(*image)->co_info().ok();
      close(*image);
      ASSERT_EQ(disk.medium->bytes, bytes.bytes);
    }
  });
}

}  // namespace
}  // namespace coimg::qcow2
