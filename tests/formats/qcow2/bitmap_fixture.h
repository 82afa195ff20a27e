// What tests of dirty bitmaps share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/formats/qcow2/image_fixture.h"

namespace coimg::qcow2 {

inline std::optional<BitmapInfo> find_bitmap(const BlockNode& image, const std::string& name) {
  for (const BitmapInfo& bitmap : image.driver().bitmaps()) {
    if (bitmap.name == name) return bitmap;
  }
  return std::nullopt;
}

/// Whether each granule is dirty; the test fails when the bitmap cannot be read.
inline std::vector<bool> dirty_granules(BlockNode& image, const std::string& name) coroutine_fn {
  const auto bitmap = find_bitmap(image, name);
  EXPECT_TRUE(bitmap) << name;
  if (!bitmap) return {};
  std::vector<bool> dirty((image.length() + bitmap->granularity - 1) / bitmap->granularity);
  const auto visited = image.co_visit_bitmap(name, [&](uint64_t offset, uint64_t bytes) {
    EXPECT_LE(offset + bytes, image.length());
    for (uint64_t at = offset; at < offset + bytes; at += bitmap->granularity) dirty[at / bitmap->granularity] = true;
  });
  EXPECT_TRUE(visited.ok()) << visited.error().message();
  return dirty;
}

/// The first granule that differs between two contents of one disk and is not dirty; nothing when none is.
inline std::optional<uint64_t> missed_granule(const std::vector<bool>& dirty, uint64_t granularity,
                                              const std::vector<std::byte>& before,
                                              const std::vector<std::byte>& after) {
  if (before.size() != after.size()) return 0;
  for (uint64_t i = 0; i < dirty.size(); ++i) {
    const auto from = static_cast<ptrdiff_t>(i * granularity);
    const auto to = static_cast<ptrdiff_t>(std::min<uint64_t>((i + 1) * granularity, after.size()));
    if (!dirty[i] && !std::equal(before.begin() + from, before.begin() + to, after.begin() + from)) return i;
  }
  return std::nullopt;
}

}  // namespace coimg::qcow2
