// What info says about one image, as text and as JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "block/driver.h"
#include "cmd/json_writer.h"

namespace coimg {

/// Everything that is known about one image of a chain.
struct ImageReport {
  std::string filename;  ///< canonical
  std::string format;
  uint64_t virtual_size = 0;
  std::optional<uint64_t> allocated_size = {};
  std::optional<std::string> resolved_backing = {};  ///< nothing when it cannot be determined
  ImageInfo info = {};
};

std::string render_human(const ImageReport& report);
/// "Format specific information:" and what belongs to it.
std::string render_format_specific(const InfoTree& tree);
JsonValue render_json(const ImageReport& report);

}  // namespace coimg
