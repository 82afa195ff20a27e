// Persistent bitmaps: reading and validating the directory.
//
// Format: qcow2, section "Persistent bitmaps", "Directory entry".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "block/node.h"
#include "formats/qcow2/format.h"
#include "formats/qcow2/header.h"

namespace coimg::qcow2 {

struct BitmapEntry {
  HostOffset table_offset;
  uint32_t table_entries = 0;
  bool in_use = false;
  bool automatic = false;  ///< records writes
  uint8_t granularity_bits = 16;
  std::string name;
};

/// Errors: EINVAL for any malformed entry; the image must not be opened then.
Result<std::vector<BitmapEntry>> load_bitmap_directory(BlockNode& file, const Header& header) coroutine_fn;

}  // namespace coimg::qcow2
