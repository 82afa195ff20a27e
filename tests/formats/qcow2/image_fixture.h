// Fresh qcow2 images in memory, opened and checked, for tests of the driver.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/node.h"
#include "block/options.h"
#include "formats/qcow2/create.h"
#include "formats/qcow2/driver.h"
#include "tests/support/fault_driver.h"

namespace coimg::qcow2 {

enum class DataFile { kNone, kPlain, kRaw };

/// What kind of image a test runs on.
struct ImageKind {
  uint64_t cluster_size = 65536;
  bool version2 = false;
  unsigned refcount_bits = 16;
  bool backing = false;
  bool extended_l2 = false;
  DataFile data_file = DataFile::kNone;
  bool lazy_refcounts = false;
  bool zstd = false;

  friend std::ostream& operator<<(std::ostream& out, const ImageKind& kind) {
    return out << fmt::format("{} bytes a cluster, version {}, {}-bit refcounts{}{}{}{}{}", kind.cluster_size,
                              kind.version2 ? 2 : 3, kind.refcount_bits, kind.extended_l2 ? ", subclusters" : "",
                              kind.backing ? ", with backing file" : "",
                              kind.data_file == DataFile::kNone    ? ""
                              : kind.data_file == DataFile::kPlain ? ", with data file"
                                                                   : ", with raw data file",
                              kind.lazy_refcounts ? ", lazily written" : "", kind.zstd ? ", zstd" : "");
  }
};

inline const DriverType& qcow2_type() {
  static const auto type = make_qcow2_driver_type();
  return *type;
}

/// A new image of `size` bytes; null and a failed test on error.
inline std::shared_ptr<MemDisk> create_image(const ImageKind& kind, uint64_t size) coroutine_fn {
  CreateOptions options(qcow2_type().create_options());
  auto set = [&](std::string_view name, const std::string& value) {
    EXPECT_TRUE(options.set(name, value).ok()) << name << "=" << value;
  };
  set("size", std::to_string(size));
  set("cluster_size", std::to_string(kind.cluster_size));
  set("compat", kind.version2 ? "0.10" : "1.1");
  if (!kind.version2) set("refcount_bits", std::to_string(kind.refcount_bits));
  if (kind.extended_l2) set("extended_l2", "on");
  if (kind.data_file != DataFile::kNone) set("data_file", "data");
  if (kind.lazy_refcounts) set("lazy_refcounts", "on");
  if (kind.zstd) set("compression_type", "zstd");
  if (kind.data_file == DataFile::kRaw) set("data_file_raw", "on");
  if (kind.backing) {
    set("backing_file", "base");
    set("backing_fmt", "raw");
  }
  auto disk = std::make_shared<MemDisk>();
  const auto file = make_mem_node(disk);
  auto created = qcow2_type().create(file.get(), "image", options);
  EXPECT_TRUE(created.ok()) << created.error().message();
  EXPECT_TRUE(file->co_close().ok());
  return disk;
}

/// Opens the image on `file`, with `backing` below when it is not empty, and `data` when it has a data file. Null and a
/// failed test on error.
inline std::unique_ptr<BlockNode> open_image(std::unique_ptr<BlockNode> file, const std::vector<std::byte>& backing,
                                             OpenFlags flags = {.writable = true},
                                             std::unique_ptr<BlockNode> data = nullptr) coroutine_fn {
  auto image = open_format(qcow2_type(), std::move(file), flags, {}, std::move(data));
  EXPECT_TRUE(image.ok()) << image.error().message();
  if (!image.ok()) return nullptr;
  if (!backing.empty()) (*image)->set_backing(make_mem_node(backing));
  return *std::move(image);
}

/// Keeps the findings, for the test's message.
class FindingCollector final : public CheckReporter {
 public:
  void finding(std::string_view line) override { text_.append(line).append("\n"); }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
};

/// check() finds no corruption, and no leak unless they are allowed.
inline void expect_sound(BlockNode& image, bool leaks_allowed = false) coroutine_fn {
  FindingCollector findings;
  auto result = image.co_check({.reporter = &findings});
  ASSERT_TRUE(result.ok()) << result.error().message();
  EXPECT_EQ(result->corruptions, 0u) << findings.text();
  EXPECT_EQ(result->check_errors, 0u) << findings.text();
  if (!leaks_allowed) {
    EXPECT_EQ(result->leaks, 0u) << findings.text();
  }
}

}  // namespace coimg::qcow2
