// The header of an add-cow file: what it says, and what can be wrong with it. No I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/util/result.h"
#include "formats/add_cow/format.h"

namespace coimg::add_cow {

/// A part of the header.
struct HeaderRange {
  uint64_t offset = 0, bytes = 0;
};

struct Header {
  Geometry geometry;
  uint64_t compatible_features = 0;  ///< unknown ones are kept
  std::string backing_file, backing_format;
  std::string image_file, image_format;
  /// Where the names lie.
  HeaderRange backing_name, image_name;

  [[nodiscard]] bool all_allocated() const { return (compatible_features & kAllAllocated) != 0; }
};

/// Whether a name is that of a format that can be opened.
using KnowsFormat = std::function<bool(std::string_view)>;

struct ParsedHeader {
  Header header;              ///< valid when there are no faults
  std::vector<Error> faults;  ///< each reason to refuse the image, in the order of the specification's rules
};

/// How much of the file is its header, by its first bytes (76 or fewer); the least possible when they make no sense.
uint64_t header_bytes_of(std::span<const std::byte> start);

/// Reads the header. `bytes` is as much of it as the file has, which is `file_bytes` long.
///
/// Format: add-cow, section "Validation on open", rules 1 to 12.
ParsedHeader parse_header(std::span<const std::byte> bytes, uint64_t file_bytes, const KnowsFormat& knows_format);

/// Whether the file is an add-cow image, or of a draft of the format that is recognised in order to be refused.
bool has_magic(std::span<const std::byte> start);

/// The fixed fields. Names and formats fit.
DiskHeader encode_fixed_fields(const Header& header);
/// The header from its start to the end of the names.
std::vector<std::byte> encode_header(const Header& header);

/// Puts the names where new images have them. Errors: ENAMETOOLONG, ENOSPC when they do not fit.
Result<void> lay_out_names(Header& header);
/// Bytes for a name of a header in use: none that the two names take. Nothing when there is no room.
std::optional<HeaderRange> find_room(const Header& header, uint64_t bytes);

/// How many of the bytes from `offset` on, at most `most`, are no name's.
uint64_t unused_bytes(const Header& header, uint64_t offset, uint64_t most);

/// Whether the header has bytes other than zero that no field and no name covers.
bool has_stray_bytes(std::span<const std::byte> header_bytes, const Header& header);

}  // namespace coimg::add_cow
