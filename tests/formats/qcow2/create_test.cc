// Tests create.cc, create_options.cc, fresh_layout.cc, file_growth.cc, copy_size.cc and measure.cc. That new images are
// equal to those of qemu-img is tested where that is installed: tests/interop/create_same_bytes.sh; that copies are as
// long as measured in tests/interop/measure.sh.
#include "formats/qcow2/create.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "coroutine/main_loop.h"
#include "formats/qcow2/copy_size.h"
#include "formats/qcow2/fresh_layout.h"
#include "tests/formats/qcow2/image_fixture.h"

namespace coimg::qcow2 {
namespace {

CreateOptions options_of(std::string_view list) {
  CreateOptions options(qcow2_type().create_options());
  EXPECT_TRUE(list.empty() || options.parse(list).ok()) << list;
  return options;
}

std::string refusal(std::string_view list) {
  const auto result = qcow2_type().validate_create(options_of(list));
  return result.ok() ? "none" : result.error().message();
}

std::shared_ptr<MemDisk> created(std::string_view list) coroutine_fn {
  auto disk = std::make_shared<MemDisk>();
  const auto file = make_mem_node(disk);
  const auto result = qcow2_type().create(file.get(), "image", options_of(list));
  EXPECT_TRUE(result.ok()) << list << ": " << result.error().message();
  EXPECT_TRUE(file->co_close().ok());
  return disk;
}

TEST(CreateTest, RefusesInTheKnownOrder) {
  EXPECT_EQ(refusal("compat=0.9,preallocation=bogus"), "Parameter 'version' does not accept value '0.9'");
  EXPECT_EQ(refusal("compression_type=lz4,preallocation=bogus"),
            "Parameter 'preallocation' does not accept value 'bogus'");
  EXPECT_EQ(refusal("compression_type=lz4,cluster_size=3k"),
            "Parameter 'compression-type' does not accept value 'lz4'");
  EXPECT_EQ(refusal("cluster_size=4M,refcount_bits=3"), "Cluster size must be a power of two between 512 and 2048k");
  EXPECT_EQ(refusal("compat=v2,lazy_refcounts=on,refcount_bits=3"),
            "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)");
  EXPECT_EQ(refusal("refcount_bits=128"), "Refcount width must be a power of two and may not exceed 64 bits");
  EXPECT_EQ(refusal("compat=v2,refcount_bits=8"),
            "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or "
            "greater)");
  EXPECT_EQ(refusal("extended_l2=on,cluster_size=8k"),
            "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes");
  EXPECT_EQ(refusal("backing_file=b,backing_fmt=raw,preallocation=full"),
            "Backing file and preallocation can only be used at the same time if extended_l2 is on");
  EXPECT_EQ(refusal("data_file_raw=on"), "data-file-raw requires data-file");
  EXPECT_EQ(refusal("cluster_size=512,data_file=" + std::string(400, 'd')),
            "Could not update qcow2 header: No space left on device");
  EXPECT_EQ(refusal("encrypt.format=luks"), "Parameter 'encrypt.key-secret' is required for cipher");
  EXPECT_EQ(refusal("extended_l2=on"), "none");
  EXPECT_EQ(refusal("size=64P"),
            "The image size is too large for file format 'qcow2' (try using a larger cluster size)");
  EXPECT_EQ(refusal("size=2P"), "none");
  EXPECT_EQ(refusal("backing_fmt=raw,backing_file=" + std::string(1024, 'b')),
            "Could not assign backing file '" + std::string(1024, 'b') + "' with format 'raw': Invalid argument");
  EXPECT_EQ(refusal("cluster_size=512,backing_fmt=raw,backing_file=" + std::string(500, 'b')),
            "Could not assign backing file '" + std::string(500, 'b') + "' with format 'raw': No space left on device");
}

TEST(CreateTest, NewImagesAreSoundAndEndWithTheirL1Table) {
  run_in_main_loop([]() coroutine_fn {
    for (const char* cluster_size : {"512", "1k", "4k", "64k", "2M"}) {
      for (const char* more : {"compat=v2", "refcount_bits=1", "refcount_bits=64", "compression_type=zstd"}) {
        for (const uint64_t size : {uint64_t{0}, uint64_t{1}, 100 * kMiB, kGiB}) {
          const std::string list = fmt::format("cluster_size={},{},size={}", cluster_size, more, size);
          SCOPED_TRACE(list);
          const auto disk = created(list);
          const auto image = open_image(make_mem_node(disk), {});
          ASSERT_NE(image, nullptr);
          EXPECT_EQ(image->length(), align_up(size, 512));
          expect_sound(*image);
          const Geometry geometry = parse_header(std::vector(disk->bytes), {})->geometry();
          const uint64_t l1_end = 3 * geometry.cluster_size() + 8 * geometry.l1_needed(align_up(size, 512));
          if (l1_end <= geometry.refcounts_per_block() * geometry.cluster_size()) {
            EXPECT_EQ(disk->bytes.size(), l1_end);
          }
          EXPECT_TRUE(image->co_close().ok());
        }
      }
    }
  });
}

TEST(CreateTest, PreallocatedDisksHaveAPlaceForEveryCluster) {
  run_in_main_loop([]() coroutine_fn {
    for (const char* mode : {"metadata", "falloc", "full"}) {
      for (const char* shape :
           {"cluster_size=512,refcount_bits=64,size=300k", "cluster_size=4k,size=20M", "size=3473408"}) {
        SCOPED_TRACE(fmt::format("{} {}", mode, shape));
        const auto image = open_image(make_mem_node(created(fmt::format("{},preallocation={}", shape, mode))), {});
        ASSERT_NE(image, nullptr);
        expect_sound(*image);
        for (uint64_t offset = 0; offset < image->length();) {
          const auto status = image->co_block_status(offset, image->length() - offset, false);
          ASSERT_TRUE(status.ok());
          EXPECT_TRUE(status->allocated && status->data);
          offset += status->bytes;
        }
        EXPECT_EQ(read_all(*image), std::vector<std::byte>(image->length()));
        const auto before = image->file()->length();
        const std::vector<std::byte> data = pattern(image->length());
        EXPECT_TRUE(image->co_pwrite(0, data).ok());
        EXPECT_EQ(image->file()->length(), before) << "nothing had to be allocated";
        EXPECT_EQ(read_all(*image), data);
        EXPECT_TRUE(image->co_close().ok());
      }
    }
  });
}

TEST(CreateTest, TablesThatLieScatteredAreReservedBeforeTheyAreWritten) {
  run_in_main_loop([]() coroutine_fn {
    for (const bool many : {false, true}) {
      auto disk = std::make_shared<MemDisk>();
      const auto file = make_mem_node(disk);
      const auto options = fmt::format("cluster_size=512,preallocation=metadata,size={}", many ? "40M" : "32k");
      ASSERT_TRUE(qcow2_type().create(file.get(), "image", options_of(options)).ok());
      std::set<uint64_t> reserved;
      for (const ByteRange& range : mem_driver(*file).reserved()) {
        EXPECT_EQ(range.bytes, 512u);
        reserved.insert(range.offset);
      }
      const Header header = parse_header(std::vector(disk->bytes), {}).value();
      const auto* l1_table = reinterpret_cast<const be64*>(disk->bytes.data() + header.l1_table_offset.v);
      for (uint32_t i = 0; i < header.l1_size; ++i) {
        EXPECT_EQ(reserved.erase(L1Entry(uint64_t{l1_table[i]}).l2_table().v), many ? 1u : 0u) << "L1 index " << i;
      }
      EXPECT_EQ(reserved.empty(), !many) << "refcount blocks are left";
      EXPECT_TRUE(file->co_close().ok());
    }
  });
}

// Whichever write fails, no file is left that looks like an image.
TEST(CreateTest, AnImageAppearsWithItsLastWrite) {
  run_in_main_loop([]() coroutine_fn {
    for (uint64_t nth = 1;; ++nth) {
      auto disk = std::make_shared<MemDisk>();
      const auto file = make_fault_node(disk);
      fault_driver(*file).fail_nth_io(nth, EIO, kOpWrite | kOpZeroes | kOpTruncate);
      const auto result = qcow2_type().create(file.get(), "image", options_of("size=1M,preallocation=metadata"));
      const bool fired = fault_driver(*file).fired();
      EXPECT_TRUE(file->co_close().ok());
      EXPECT_EQ(result.ok(), !fired);
      if (!fired) {
        EXPECT_GT(nth, 4u);
        return;
      }
      disk->bytes.resize(2048);
      EXPECT_EQ(qcow2_type().probe(disk->bytes), 0) << "I/O number " << nth;
    }
  });
}

TEST(FreshLayoutTest, TheRefcountTableMovesWhenItIsTooSmall) {
  // The L1 table takes 51,200 clusters. 201 blocks count them, and the first refcount table has room for 64.
  const Geometry geometry(9, 4);
  const auto layout = plan_empty_disk(geometry, 100 * kGiB);
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->refcount_table.v / 512, 51457u);
  EXPECT_EQ(layout->refcount_table_clusters, 5u);
  ASSERT_EQ(layout->abandoned.size(), 1u);
  EXPECT_EQ(layout->abandoned[0].offset, HostOffset(512));
  EXPECT_EQ(layout->abandoned[0].entries.size(), 64u);
  EXPECT_EQ(layout->used.front(), (ClusterRun{HostCluster(0), HostCluster(1)})) << "cluster 1 is free again";
  EXPECT_EQ(layout->file_bytes, 51462u * 512);
}

TEST(FreshLayoutTest, AGrownRefcountTableIsDescribedByItsBlocks) {
  for (const uint32_t bits : {9u, 12u, 16u, 21u}) {
    for (uint32_t order = 0; order <= 6; ++order) {
      const Geometry geometry(bits, order);
      const uint64_t most = kMaxRefcountTableBytes / sizeof(be64);
      for (uint64_t described = 1; described < most; described += described / 50 + 1) {
        const auto grown = grow_refcount_table(geometry, described);
        if (!grown.ok()) {
          EXPECT_EQ(grown.error().errnum(), EFBIG);
          EXPECT_GT(described, most / 10 * 9) << bits << " " << order;
          break;
        }
        EXPECT_EQ(grown->first.v, described * geometry.refcounts_per_block());
        const uint64_t end = grown->first.v + grown->blocks + grown->table_clusters;
        EXPECT_LE(end, (described + grown->blocks) * geometry.refcounts_per_block()) << bits << " " << described;
        const uint64_t entries = grown->table_clusters * geometry.cluster_size() / sizeof(be64);
        EXPECT_GE(entries, std::min(described + grown->blocks + 1, most)) << bits << " " << described;
        EXPECT_LE(entries, std::max(most, geometry.cluster_size() / sizeof(be64)));
      }
    }
  }
}

// --- measure -------------------------------------------------------------------------------------------------------

void expect_measured(std::string_view list, uint64_t size, BlockNode* source, uint64_t required,
                     uint64_t fully_allocated) coroutine_fn {
  SCOPED_TRACE(list);
  const auto result = qcow2_type().measure(options_of(list), {.virtual_size = size, .source = source});
  ASSERT_TRUE(result.ok()) << result.error().message();
  EXPECT_EQ(result->required, required);
  EXPECT_EQ(result->fully_allocated, fully_allocated);
}

/// With kCopyNonZero for data that are to be looked at.
void expect_copy_bytes(std::string_view list, uint64_t size, BlockNode* source, MeasureMethod method, uint64_t required)
    coroutine_fn {
  SCOPED_TRACE(list);
  const auto result =
      qcow2_type().measure(options_of(list), {.virtual_size = size, .source = source, .method = method});
  ASSERT_TRUE(result.ok()) << result.error().message();
  EXPECT_EQ(result->required, required);
  EXPECT_GE(result->fully_allocated, required);
}

TEST(MeasureTest, TellsWhatACopyMakes) {
  run_in_main_loop([]() coroutine_fn {
    std::vector<std::byte> content(kMiB);
    content[70000] = content[200000] = std::byte{1};
    const auto source = make_mem_node(content);
    const uint64_t empty = 3 * 65536 + 8;  // header, refcounts, L1 entries
    expect_copy_bytes("", kMiB, nullptr, MeasureMethod::kCopy, empty);
    expect_copy_bytes("", 16 * kGiB, nullptr, MeasureMethod::kCopy, 3 * 65536 + 32 * 8);
    expect_copy_bytes("", kMiB, source.get(), MeasureMethod::kCopyNonZero, (4 + 1 + 2) * 65536);
    expect_copy_bytes("cluster_size=2M", kMiB, source.get(), MeasureMethod::kCopyNonZero, (4 + 1 + 1) * 2 * kMiB);
    expect_copy_bytes("preallocation=metadata", kMiB, nullptr, MeasureMethod::kCopy, 1376256);
    expect_copy_bytes("data_file=d", kMiB, source.get(), MeasureMethod::kCopyNonZero, 5 * 65536 + kMiB);
    expect_copy_bytes("backing_file=b,backing_fmt=raw", kMiB, source.get(), MeasureMethod::kCopyNonZero, 1376256);
    // What is wrong with options that only a copy looks at.
    EXPECT_FALSE(qcow2_type()
                     .measure(options_of("compat=0.10,lazy_refcounts=on"),
                              {.virtual_size = kMiB, .method = MeasureMethod::kCopy})
                     .ok());
    ASSERT_TRUE(source->co_close().ok());
  });
}

/// Writes of 2 MiB, one after the other.
uint64_t bytes_when_full(std::string_view list, uint64_t size) {
  CreateOptions options = options_of(list);
  EXPECT_TRUE(options.set("size", std::to_string(size)).ok());
  const auto plan = plan_image(options);
  EXPECT_TRUE(plan.ok());
  CopySize full(*plan);
  EXPECT_TRUE(full.note_full_disk(2 * kMiB).ok());
  return full.bytes();
}

// Whether that comes from formulas or not.
TEST(MeasureTest, TellsWhatAFullDiskTakes) {
  run_in_main_loop([]() coroutine_fn {
    for (const std::string_view list :
         {"cluster_size=512", "cluster_size=512,refcount_bits=64", "cluster_size=512,refcount_bits=1",
          "cluster_size=1k,refcount_bits=32", "cluster_size=4k", "cluster_size=4k,refcount_bits=64", "",
          "extended_l2=on,cluster_size=16k,refcount_bits=64", "cluster_size=2M", "data_file=d",
          "data_file=d,cluster_size=512", "cluster_size=1k,preallocation=metadata", "preallocation=falloc"}) {
      SCOPED_TRACE(list);
      for (uint64_t size = 512; size < 2 * kGiB; size += size / 8 / 512 * 512 + 512) {
        const auto result =
            qcow2_type().measure(options_of(list), {.virtual_size = size, .method = MeasureMethod::kCopy});
        ASSERT_TRUE(result.ok()) << size;
        ASSERT_EQ(result->fully_allocated, bytes_when_full(list, size)) << size;
      }
    }
    // Too much to be gone through, and too much for the format when it is full: by formulas.
    const auto measured = [](std::string_view list, uint64_t size) coroutine_fn {
      const auto result =
          qcow2_type().measure(options_of(list), {.virtual_size = size, .method = MeasureMethod::kCopy});
      return result.ok() ? result->fully_allocated : 0;
    };
    EXPECT_EQ(measured("", 60 * 1024 * kGiB), 65980765634560u);
    EXPECT_EQ(measured("cluster_size=512,refcount_bits=64", 128 * kGiB), 141871369216u);
  });
}

TEST(MeasureTest, ReadErrorsComeBackFromDataThatAreLookedAt) {
  run_in_main_loop([]() coroutine_fn {
    auto disk = std::make_shared<MemDisk>();
    disk->bytes.assign(kMiB, std::byte{1});
    const auto source = make_fault_node(disk);
    fault_driver(*source).fail_nth_io(1, EIO, kOpRead);
    const auto result = qcow2_type().measure(
        options_of(""), {.virtual_size = kMiB, .source = source.get(), .method = MeasureMethod::kCopyNonZero});
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().message(), "error while reading at byte 0: Input/output error");
    ASSERT_TRUE(source->co_close().ok());
  });
}

TEST(MeasureTest, PredictsSizes) {
  run_in_main_loop([]() coroutine_fn {
    // Data in two clusters of 64 KiB, one of them touched twice, and in five of 4 KiB.
    std::vector<std::byte> content(kMiB);
    for (const size_t at : {size_t{70000}, size_t{90000}, size_t{90100}, size_t{200000}}) content[at] = std::byte{1};
    std::fill_n(content.begin() + 126976, 8192, std::byte{2});
    const auto source = make_mem_node(content);
    expect_measured("", kGiB, nullptr, 393216, 1074135040);
    expect_measured("", kMiB, source.get(), 327680 + 3 * 65536, 1376256);
    expect_measured("cluster_size=4k", kMiB, source.get(), 20480 + 5 * 4096, 20480 + kMiB);
    expect_measured("cluster_size=512", 128 * kGiB, nullptr, 2737157632, 140176111104);
    expect_measured("extended_l2=on", 10 * kGiB, nullptr, 3211264, 10740629504);
    expect_measured("preallocation=full", kGiB, nullptr, 1074135040, 1074135040);
    expect_measured("preallocation=falloc", kMiB, source.get(), 1376256, 1376256);
    expect_measured("preallocation=metadata", kMiB, source.get(), 327680 + 3 * 65536, 1376256);
    expect_measured("backing_file=b,backing_fmt=raw", kMiB, source.get(), 1376256, 1376256);
    expect_measured("backing_file=b,backing_fmt=raw", kMiB, nullptr, 327680, 1376256);
    EXPECT_EQ(qcow2_type().measure(options_of(""), {.virtual_size = uint64_t{1} << 60}).error().message(),
              "The image size is too large (try using a larger cluster size)");
    ASSERT_TRUE(source->co_close().ok());
  });
}

}  // namespace
}  // namespace coimg::qcow2
