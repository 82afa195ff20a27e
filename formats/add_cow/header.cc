// Parsing, validating and encoding the header.
//
// All arithmetic on fields is in 64 bits. A fault does not end the search for others, so that check can list them all;
// it ends where the following fields have no meaning any more.
//
// Format: add-cow, sections "Fixed fields", "Validation on open".
#include "formats/add_cow/header.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>

namespace coimg::add_cow {

namespace {

constexpr unsigned char kDraftMagic[8] = {'A', 'D', 'D', '_', 'C', 'O', 'W', 0xff};

bool is_draft(std::span<const std::byte> start) {
  return start.size() >= sizeof kDraftMagic && std::memcmp(start.data(), kDraftMagic, sizeof kDraftMagic) == 0;
}

Error fault(int errnum, size_t offset, std::string message) {
  return Error(errnum, std::move(message)).at("add-cow header", offset);
}

/// The text before the first NUL; nothing when there is no NUL.
std::optional<std::string> format_name_of(const DiskFormatName& field) {
  const auto* const end = std::find(field.begin(), field.end(), '\0');
  if (end == field.end()) return std::nullopt;
  return std::string(field.begin(), end);
}

DiskFormatName encode_format_name(const std::string& name) {
  assert(name.size() <= kMaxFormatNameBytes);
  DiskFormatName field{};
  std::copy(name.begin(), name.end(), field.begin());
  return field;
}

/// Printable, for messages about names that may be anything.
std::string shown(std::string_view text) {
  std::string result;
  for (const char c : text) result += c >= ' ' && c < 0x7f ? std::string(1, c) : fmt::format("\\x{:02x}", c & 0xff);
  return result;
}

class HeaderParser {
 public:
  HeaderParser(std::span<const std::byte> bytes, uint64_t file_bytes, const KnowsFormat& knows_format)
      : bytes_(bytes), file_bytes_(file_bytes), knows_format_(knows_format) {}

  ParsedHeader parse() {
    if (check_start() && check_geometry()) {
      check_features();
      check_image_name();
      check_backing_name();
      check_formats();
    }
    return std::move(result_);
  }

 private:
  template <typename... Args>
  void refuse(int errnum, size_t offset, fmt::format_string<Args...> text, Args&&... args) {
    result_.faults.push_back(fault(errnum, offset, fmt::format(text, std::forward<Args>(args)...)));
  }

  /// Rules 1 and 2. Returns whether the fields can be looked at.
  bool check_start() {
    if (is_draft(bytes_)) {
      refuse(ENOTSUP, 0, "the image is of an early draft of the add-cow format, which is not supported");
      return false;
    }
    if (bytes_.size() < sizeof(DiskHeader)) {
      refuse(EINVAL, 0, "truncated header: the file has {} bytes, the fixed fields take {}", file_bytes_,
             sizeof(DiskHeader));
      return false;
    }
    std::memcpy(&fixed_, bytes_.data(), sizeof fixed_);
    if (fixed_.magic == kMagic) return true;
    refuse(EINVAL, 0, "not an add-cow image: magic is {:#x}, {:#x} is needed", uint32_t{fixed_.magic}, kMagic);
    return false;
  }

  /// Rules 3 to 5. Returns whether the size of the header is known.
  bool check_geometry() {
    const uint32_t bits = fixed_.cluster_bits;
    if (bits < kMinClusterBits || bits > kMaxClusterBits) {
      refuse(EINVAL, offsetof(DiskHeader, cluster_bits), "cluster_bits is {}; {} to {} are allowed", bits,
             kMinClusterBits, kMaxClusterBits);
      return false;
    }
    header().geometry.cluster_bits = bits;
    const uint64_t header_bytes = header().geometry.header_bytes();
    if (fixed_.header_bytes != header_bytes) {
      refuse(EINVAL, offsetof(DiskHeader, header_bytes), "header_size is {}; {} is needed with clusters of {} bytes",
             uint32_t{fixed_.header_bytes}, header_bytes, header().geometry.cluster_bytes());
    }
    if (file_bytes_ < header_bytes) {
      refuse(EINVAL, file_bytes_, "truncated header: the file has {} bytes, the header takes {}", file_bytes_,
             header_bytes);
    }
    return true;
  }

  /// Rule 6.
  void check_features() {
    header().compatible_features = fixed_.compatible_features;
    if (fixed_.features == 0) return;
    refuse(ENOTSUP, offsetof(DiskHeader, features), "features is {:#x}: incompatible features that are not known",
           uint64_t{fixed_.features});
  }

  /// Rules 7 and 10.
  void check_image_name() {
    header().image_name = {fixed_.image_offset, fixed_.image_bytes};
    if (header().image_name.bytes == 0) {
      refuse(EINVAL, offsetof(DiskHeader, image_bytes), "image_size is 0: there is no name of an image file");
      return;
    }
    take_name("image", offsetof(DiskHeader, image_offset), header().image_name, header().image_file);
  }

  /// Rules 8, 9 and 10.
  void check_backing_name() {
    header().backing_name = {fixed_.backing_offset, fixed_.backing_bytes};
    const HeaderRange& range = header().backing_name;
    if ((range.offset == 0) != (range.bytes == 0)) {
      refuse(EINVAL, offsetof(DiskHeader, backing_offset),
             "backing_offset is {} and backing_size is {}; both or none must be 0", range.offset, range.bytes);
      return;
    }
    if (range.bytes == 0) return;
    take_name("backing", offsetof(DiskHeader, backing_offset), range, header().backing_file);
  }

  void take_name(std::string_view what, size_t field_offset, const HeaderRange& range, std::string& name) {
    const uint64_t header_bytes = header().geometry.header_bytes();
    if (range.offset < kNamesOffset || range.offset + range.bytes > header_bytes) {
      refuse(EINVAL, field_offset, "{0}_offset is {1} and {0}_size is {2}; the name must lie between {3} and {4}", what,
             range.offset, range.bytes, kNamesOffset, header_bytes);
      return;
    }
    if (range.offset + range.bytes > bytes_.size()) return;  // the file ends before: has been said
    const auto* const text = reinterpret_cast<const char*>(bytes_.data()) + range.offset;
    name.assign(text, range.bytes);
    const size_t nul = name.find('\0');
    if (nul != std::string::npos) {
      refuse(EINVAL, range.offset + nul, "the {} file name has a NUL byte", what);
    }
  }

  /// Rules 11 and 12.
  void check_formats() {
    take_format("image_fmt", offsetof(DiskHeader, image_format), fixed_.image_format, header().image_format);
    const bool backing_matters = fixed_.backing_bytes != 0 && !header().all_allocated();
    if (backing_matters) {
      take_format("backing_fmt", offsetof(DiskHeader, backing_format), fixed_.backing_format, header().backing_format);
    } else {
      header().backing_format = format_name_of(fixed_.backing_format).value_or("");
    }
  }

  void take_format(std::string_view field, size_t offset, const DiskFormatName& stored, std::string& name) {
    const auto text = format_name_of(stored);
    if (!text) {
      refuse(EINVAL, offset, "{} is '{}' without a NUL at its end", field,
             shown(std::string_view(stored.data(), stored.size())));
      return;
    }
    name = *text;
    if (name.empty()) {
      refuse(EINVAL, offset, "{} is empty; the name of a format is needed, as none is guessed", field);
    } else if (!knows_format_(name)) {
      refuse(EINVAL, offset, "{} is '{}', which is not the name of a known format", field, shown(name));
    }
  }

  Header& header() { return result_.header; }

  const std::span<const std::byte> bytes_;
  const uint64_t file_bytes_;
  const KnowsFormat& knows_format_;
  DiskHeader fixed_{};
  ParsedHeader result_;
};

bool overlap(const HeaderRange& a, const HeaderRange& b) {
  return a.bytes != 0 && b.bytes != 0 && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

}  // namespace

uint64_t header_bytes_of(std::span<const std::byte> start) {
  if (start.size() < sizeof(DiskHeader)) return kMinHeaderBytes;
  DiskHeader fixed{};
  std::memcpy(&fixed, start.data(), sizeof fixed);
  const uint32_t bits = fixed.cluster_bits;
  if (bits < kMinClusterBits || bits > kMaxClusterBits) return kMinHeaderBytes;
  return Geometry{.cluster_bits = bits}.header_bytes();
}

ParsedHeader parse_header(std::span<const std::byte> bytes, uint64_t file_bytes, const KnowsFormat& knows_format) {
  return HeaderParser(bytes, file_bytes, knows_format).parse();
}

bool has_magic(std::span<const std::byte> start) {
  le32 magic;
  if (start.size() < sizeof magic) return false;
  std::memcpy(&magic, start.data(), sizeof magic);
  return magic == kMagic || is_draft(start);
}

DiskHeader encode_fixed_fields(const Header& header) {
  DiskHeader fixed{};
  fixed.magic = kMagic;
  fixed.backing_offset = static_cast<uint32_t>(header.backing_name.offset);
  fixed.backing_bytes = static_cast<uint32_t>(header.backing_name.bytes);
  fixed.image_offset = static_cast<uint32_t>(header.image_name.offset);
  fixed.image_bytes = static_cast<uint32_t>(header.image_name.bytes);
  fixed.cluster_bits = header.geometry.cluster_bits;
  fixed.features = 0;
  fixed.compatible_features = header.compatible_features;
  fixed.header_bytes = static_cast<uint32_t>(header.geometry.header_bytes());
  fixed.backing_format = encode_format_name(header.backing_format);
  fixed.image_format = encode_format_name(header.image_format);
  return fixed;
}

std::vector<std::byte> encode_header(const Header& header) {
  const HeaderRange& backing = header.backing_name;
  const HeaderRange& image = header.image_name;
  std::vector<std::byte> bytes(std::max(backing.offset + backing.bytes, image.offset + image.bytes));
  const DiskHeader fixed = encode_fixed_fields(header);
  std::memcpy(bytes.data(), &fixed, sizeof fixed);
  std::memcpy(bytes.data() + backing.offset, header.backing_file.data(), backing.bytes);
  std::memcpy(bytes.data() + image.offset, header.image_file.data(), image.bytes);
  return bytes;
}

Result<void> lay_out_names(Header& header) {
  if (header.backing_file.size() > kMaxBackingNameBytes) {
    return Error(ENAMETOOLONG, fmt::format("the backing file name has {} bytes; {} at most are allowed",
                                           header.backing_file.size(), kMaxBackingNameBytes));
  }
  if (header.image_file.size() > kMaxImageNameBytes) {
    return Error(ENAMETOOLONG, fmt::format("the image file name has {} bytes; {} at most are allowed",
                                           header.image_file.size(), kMaxImageNameBytes));
  }
  const uint64_t room = header.geometry.header_bytes() - kNamesOffset;
  if (header.backing_file.size() + header.image_file.size() > room) {
    return Error(ENOSPC, fmt::format("the file names have {} bytes together; with clusters of {} bytes {} are allowed",
                                     header.backing_file.size() + header.image_file.size(),
                                     header.geometry.cluster_bytes(), room));
  }
  header.backing_name = {header.backing_file.empty() ? 0 : kNamesOffset, header.backing_file.size()};
  header.image_name = {kNamesOffset + header.backing_file.size(), header.image_file.size()};
  return {};
}

std::optional<HeaderRange> find_room(const Header& header, uint64_t bytes) {
  // As far in front as possible: at the first place, or right behind a name.
  const uint64_t candidates[] = {kNamesOffset, header.backing_name.offset + header.backing_name.bytes,
                                 header.image_name.offset + header.image_name.bytes};
  std::optional<HeaderRange> best;
  for (const uint64_t offset : candidates) {
    const HeaderRange range{offset, bytes};
    if (offset < kNamesOffset || offset + bytes > header.geometry.header_bytes()) continue;
    if (overlap(range, header.backing_name) || overlap(range, header.image_name)) continue;
    if (!best || offset < best->offset) best = range;
  }
  return best;
}

uint64_t unused_bytes(const Header& header, uint64_t offset, uint64_t most) {
  for (const HeaderRange& name : {header.backing_name, header.image_name}) {
    if (overlap({offset, 1}, name)) return 0;
    if (name.bytes != 0 && name.offset > offset) most = std::min(most, name.offset - offset);
  }
  return most;
}

bool has_stray_bytes(std::span<const std::byte> header_bytes, const Header& header) {
  for (uint64_t offset = kNamesOffset; offset < header_bytes.size(); ++offset) {
    if (header_bytes[offset] == std::byte{0}) continue;
    const HeaderRange byte{offset, 1};
    if (!overlap(byte, header.backing_name) && !overlap(byte, header.image_name)) return true;
  }
  return false;
}

}  // namespace coimg::add_cow
