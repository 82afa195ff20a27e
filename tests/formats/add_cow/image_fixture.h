// Fresh add-cow images in memory, for tests of the driver.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "block/node.h"
#include "block/options.h"
#include "formats/add_cow/driver.h"
#include "formats/add_cow/format.h"
#include "formats/qcow2/driver.h"
#include "tests/support/fault_driver.h"

namespace coimg::add_cow {

using Bytes = std::vector<std::byte>;

enum class Below { kNothing, kShort, kLong };  ///< a backing file that ends inside the disk, or behind it

/// What kind of image a test runs on.
struct ImageKind {
  uint64_t cluster_size = 65536;
  Below below = Below::kShort;
  bool qcow2_image = false;       ///< the format of the image file
  std::string cache_size = "1M";  ///< memory for the bitmap

  friend std::ostream& operator<<(std::ostream& out, const ImageKind& kind) {
    return out << fmt::format("{} bytes a cluster, {} backing file, {} image file, cache of {}", kind.cluster_size,
                              kind.below == Below::kNothing ? "no"
                              : kind.below == Below::kShort ? "a shorter"
                                                            : "a longer",
                              kind.qcow2_image ? "qcow2" : "raw", kind.cache_size);
  }
};

inline const DriverType& add_cow_type() {
  static const auto type = make_add_cow_driver_type();
  return *type;
}

/// COIMG_TEST_SEED repeats a run.
inline uint64_t test_seed() {
  const char* given = std::getenv("COIMG_TEST_SEED");
  return given ? std::strtoull(given, nullptr, 0) : std::random_device()();
}

/// The add-cow file of a new image over a backing file; no cluster is allocated, even if there is nothing below.
inline Bytes create_add_cow(const ImageKind& kind, uint64_t size) coroutine_fn {
  CreateOptions options(add_cow_type().create_options());
  for (const auto& [name, value] : {std::pair<std::string, std::string>{"size", std::to_string(size)},
                                    {"cluster_size", std::to_string(kind.cluster_size)},
                                    {"image_file", "image"},
                                    {"image_fmt", kind.qcow2_image ? "qcow2" : "raw"}}) {
    EXPECT_TRUE(options.set(name, value).ok()) << name;
  }
  if (kind.below != Below::kNothing) {
    EXPECT_TRUE(options.set("backing_file", "base").ok() && options.set("backing_fmt", "raw").ok());
  }
  const auto disk = std::make_shared<MemDisk>();
  const auto file = make_mem_node(disk);
  const auto created = add_cow_type().create(file.get(), "disk", options);
  EXPECT_TRUE(created.ok()) << created.error().message();
  EXPECT_TRUE(file->co_close().ok());
  disk->bytes[offsetof(DiskHeader, compatible_features)] = std::byte{0};
  return disk->bytes;
}

/// A qcow2 image of `size` bytes.
inline Bytes create_qcow2(uint64_t size) coroutine_fn {
  const auto type = make_qcow2_driver_type();
  CreateOptions options(type->create_options());
  EXPECT_TRUE(options.set("size", std::to_string(size)).ok() && options.set("cluster_size", "4096").ok());
  const auto disk = std::make_shared<MemDisk>();
  const auto file = make_mem_node(disk);
  EXPECT_TRUE(type->create(file.get(), "image", options).ok());
  EXPECT_TRUE(file->co_close().ok());
  return disk->bytes;
}

/// What the backing file of a disk of `size` bytes holds.
inline Bytes backing_content(const ImageKind& kind, uint64_t size, uint64_t seed) {
  if (kind.below == Below::kNothing) return {};
  Bytes content = pattern(kind.below == Below::kShort ? size - size / 4 + 512 : size + kind.cluster_size * 5 / 2, seed);
  // A part of it is zeros.
  std::fill_n(content.begin() + static_cast<ptrdiff_t>(content.size() / 3), content.size() / 5, std::byte{0});
  return content;
}

/// What an image file may hold before it is used: no guest may see any of it.
inline Bytes poison(uint64_t size) { return Bytes(size, std::byte{0xee}); }

/// Opens the image whose add-cow file is `file`, and whose image file is `image` in the kind's format; with `backing`
/// below when it is not empty. Null and a failed test on error.
inline std::unique_ptr<BlockNode> open_image(const ImageKind& kind, std::unique_ptr<BlockNode> file,
                                             std::unique_ptr<BlockNode> image, const Bytes& backing,
                                             OpenFlags flags = {.writable = true}) coroutine_fn {
  static const auto qcow2 = make_qcow2_driver_type();
  if (kind.qcow2_image) {
    auto opened = open_format(*qcow2, std::move(image), {.writable = flags.writable});
    EXPECT_TRUE(opened.ok()) << opened.error().message();
    if (!opened.ok()) return nullptr;
    image = *std::move(opened);
  }
  Options options;
  options.set("cache-size", kind.cache_size);
  auto disk = open_format(add_cow_type(), std::move(file), flags, std::move(options), std::move(image));
  EXPECT_TRUE(disk.ok()) << disk.error().message();
  if (!disk.ok()) return nullptr;
  if (!backing.empty()) (*disk)->set_backing(make_mem_node(backing));
  return *std::move(disk);
}

/// Keeps the findings, for the test's message.
class FindingCollector final : public CheckReporter {
 public:
  void finding(std::string_view line) override { text_.append(line).append("\n"); }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
};

/// check() finds no corruption. What is left in the image file under clusters that are not allocated is no concern.
inline void expect_sound(BlockNode& image) coroutine_fn {
  FindingCollector findings;
  const auto result = image.co_check({.reporter = &findings});
  ASSERT_TRUE(result.ok()) << result.error().message();
  EXPECT_EQ(result->corruptions, 0u) << findings.text();
  EXPECT_EQ(result->check_errors, 0u) << findings.text();
}

}  // namespace coimg::add_cow
