// Parsing, validating and encoding the header cluster.
//
//     0              72 or header_length                                       cluster size
//     | fixed fields | extension | extension | ... | end | backing name | zeros |
//
// Messages are those of qemu-img wherever it has one for the case, as people and scripts know them.
//
// Format: qcow2, sections "Header", "Header extensions", "Rewriting the header cluster", "Validation table: Header".
#include "formats/qcow2/header.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <climits>
#include <cstring>
#include <string_view>
#include <utility>

namespace coimg::qcow2 {

namespace {

struct DiskExtension {
  be32 type;
  be32 length;
};
struct DiskFeatureName {
  uint8_t kind;
  uint8_t bit;
  char name[46];
};
struct DiskBitmaps {
  be32 count;
  be32 reserved;
  be64 directory_bytes;
  be64 directory_offset;
};
struct DiskEncryption {
  be64 offset;
  be64 bytes;
};
static_assert(sizeof(DiskExtension) == 8 && sizeof(DiskFeatureName) == 48);
static_assert(sizeof(DiskBitmaps) == 24 && sizeof(DiskEncryption) == 16);

/// With clusters up to this size the feature name table is left out, so that a backing file's name still fits.
constexpr uint64_t kNoFeatureTableClusterBytes = 4096;
/// Table offsets and their ends are positions in a file.
constexpr uint64_t kMaxTableEnd = INT64_MAX;

template <typename T>
T read_struct(std::span<const std::byte> bytes, size_t offset = 0) {
  T value;
  assert(offset + sizeof(T) <= bytes.size());
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

/// A string field: it ends at a NUL if there is one.
std::string text_of(std::span<const std::byte> bytes) {
  const auto* const text = reinterpret_cast<const char*>(bytes.data());
  return {text, strnlen(text, bytes.size())};
}

Error refused(int errnum, std::string message, uint64_t offset) {
  return Error(errnum, std::move(message)).at("qcow2 header", offset);
}
Error invalid(std::string message, uint64_t offset) { return refused(EINVAL, std::move(message), offset); }

// --- parsing -------------------------------------------------------------------------------------------------------

/// Copies the fixed fields. Checks nothing but the header's own length.
Result<Header> parse_fixed_fields(std::span<const std::byte> cluster) {
  const auto v2 = read_struct<DiskHeaderV2>(cluster);
  Header header;
  header.version = v2.version;
  header.cluster_bits = v2.cluster_bits;
  header.size = v2.size;
  header.crypt_method = static_cast<CryptMethod>(uint32_t{v2.crypt_method});
  header.l1_size = v2.l1_size;
  header.l1_table_offset = HostOffset(v2.l1_table_offset);
  header.refcount_table_offset = HostOffset(v2.refcount_table_offset);
  header.refcount_table_clusters = v2.refcount_table_clusters;
  header.nb_snapshots = v2.nb_snapshots;
  header.snapshots_offset = HostOffset(v2.snapshots_offset);
  if (header.version == 2) {
    header.header_length = sizeof(DiskHeaderV2);
    return header;
  }

  const auto v3 = read_struct<DiskHeaderV3>(cluster);
  header.incompatible_features = v3.incompatible_features;
  header.compatible_features = v3.compatible_features;
  header.autoclear_features = v3.autoclear_features;
  header.refcount_order = v3.refcount_order;
  header.header_length = v3.header_length;
  if (header.header_length < kMinHeaderLengthV3)
    return invalid("qcow2 header too short", offsetof(DiskHeaderV3, header_length));
  if (header.header_length > cluster.size())
    return invalid("qcow2 header exceeds cluster size", offsetof(DiskHeaderV3, header_length));
  // A field at or behind the header's end is zero, whatever lies there.
  if (header.header_length > offsetof(DiskHeaderV3, compression_type)) {
    header.compression_type = static_cast<CompressionType>(v3.compression_type);
  }
  if (header.header_length > kHeaderLengthV3) {
    const auto unknown = cluster.subspan(kHeaderLengthV3, header.header_length - kHeaderLengthV3);
    header.unknown_fields.assign(unknown.begin(), unknown.end());
  }
  return header;
}

/// Takes the backing file's name. Returns where the header extensions have to end.
Result<uint64_t> parse_backing_name(std::span<const std::byte> cluster, Header& header) {
  const auto fixed = read_struct<DiskHeaderV2>(cluster);
  const uint64_t offset = fixed.backing_file_offset;
  if (offset == 0) return cluster.size();
  const uint64_t bytes = fixed.backing_file_size;
  // A name inside the fixed fields is refused; no name may be anywhere.
  if (offset > cluster.size() || (offset < header.header_length && bytes != 0)) {
    return invalid("Invalid backing file offset", offsetof(DiskHeaderV2, backing_file_offset));
  }
  if (bytes > std::min<uint64_t>(kMaxBackingNameBytes, cluster.size() - offset)) {
    return invalid("Backing file name too long", offsetof(DiskHeaderV2, backing_file_size));
  }
  header.backing_file = text_of(cluster.subspan(offset, bytes));
  return offset;
}

struct Extension {
  uint32_t type = 0;
  uint64_t offset = 0;  ///< of its data in the file
  std::span<const std::byte> data;
};

/// Walks the extensions that lie in [position, end()) of a cluster.
class ExtensionReader {
 public:
  ExtensionReader(std::span<const std::byte> area, uint64_t position) : area_(area), position_(position) {}

  /// Nothing at the end, which is either a marker or the end of the area.
  Result<std::optional<Extension>> next() {
    if (position_ >= area_.size()) return std::nullopt;
    if (area_.size() - position_ < sizeof(DiskExtension)) return too_large();
    const auto head = read_struct<DiskExtension>(area_, position_);
    position_ += sizeof(DiskExtension);
    const uint64_t length = head.length;
    if (length > area_.size() - position_) return too_large();
    const Extension extension{.type = head.type, .offset = position_, .data = area_.subspan(position_, length)};
    position_ = align_up(position_ + length, 8);
    if (static_cast<ExtensionType>(extension.type) == ExtensionType::kEnd) return std::nullopt;
    return extension;
  }

 private:
  [[nodiscard]] Error too_large() const { return invalid("Header extension too large", position_); }

  std::span<const std::byte> area_;  ///< from the start of the cluster
  uint64_t position_;
};

std::vector<FeatureName> parse_feature_names(std::span<const std::byte> data) {
  std::vector<FeatureName> names;
  for (; data.size() >= sizeof(DiskFeatureName); data = data.subspan(sizeof(DiskFeatureName))) {
    const auto entry = read_struct<DiskFeatureName>(data);
    const size_t length = strnlen(entry.name, sizeof(entry.name));
    if (length == 0) break;
    names.push_back({.kind = entry.kind, .bit = entry.bit, .name = {entry.name, length}});
  }
  return names;
}

Result<void> parse_bitmaps(const Extension& extension, Header& header) {
  const auto data = extension.data;
  const auto invalid_bitmaps = [&extension](std::string message, size_t field) {
    return invalid("bitmaps_ext: " + std::move(message), extension.offset + field);
  };
  if (data.size() != sizeof(DiskBitmaps)) return invalid_bitmaps("Invalid extension length", 0);
  if (!(header.autoclear_features & kBitmapsValid)) {
    header.stale_bitmaps = true;
    return {};
  }
  const auto disk = read_struct<DiskBitmaps>(data);
  if (disk.reserved != 0) return invalid_bitmaps("Reserved field is not zero", offsetof(DiskBitmaps, reserved));
  if (disk.count > kMaxBitmaps) {
    return invalid_bitmaps(fmt::format("Image has {} bitmaps, exceeding the QEMU supported maximum of {}",
                                       uint32_t{disk.count}, kMaxBitmaps),
                           offsetof(DiskBitmaps, count));
  }
  if (disk.count == 0) return invalid("found bitmaps extension with zero bitmaps", extension.offset);
  const uint64_t offset = disk.directory_offset, bytes = disk.directory_bytes;
  if (!is_aligned(offset, header.geometry().cluster_size())) {
    return invalid_bitmaps("invalid bitmap directory offset", offsetof(DiskBitmaps, directory_offset));
  }
  if (bytes > kMaxBitmapDirectoryBytes) {
    return invalid_bitmaps(fmt::format("bitmap directory size ({}) exceeds the maximum supported size ({})", bytes,
                                       kMaxBitmapDirectoryBytes),
                           offsetof(DiskBitmaps, directory_bytes));
  }
  if (!range_within(offset, bytes, kMaxTableEnd))
    return invalid_bitmaps("invalid bitmap directory offset", offsetof(DiskBitmaps, directory_offset));
  header.bitmaps = {.count = disk.count, .directory_bytes = bytes, .directory_offset = HostOffset(offset)};
  return {};
}

Result<void> parse_encryption(const Extension& extension, Header& header) {
  const auto data = extension.data;
  if (header.crypt_method != CryptMethod::kLuks) {
    return invalid("CRYPTO header extension only expected with LUKS encryption method", extension.offset);
  }
  if (data.size() != sizeof(DiskEncryption)) {
    return invalid(
        fmt::format("CRYPTO header extension size {}, but expected size {}", data.size(), sizeof(DiskEncryption)),
        extension.offset);
  }
  const auto disk = read_struct<DiskEncryption>(data);
  const uint64_t cluster_size = header.geometry().cluster_size();
  if (!is_aligned(disk.offset, cluster_size)) {
    return invalid(fmt::format("Encryption header offset '{}' is not a multiple of cluster size '{}'",
                               uint64_t{disk.offset}, cluster_size),
                   extension.offset);
  }
  if (!range_within(disk.offset, disk.bytes, kMaxTableEnd))
    return invalid("Encryption header offset invalid", extension.offset);
  header.encryption = {.offset = HostOffset(disk.offset), .bytes = disk.bytes};
  return {};
}

Result<void> parse_extension(const Extension& extension, Header& header) {
  switch (static_cast<ExtensionType>(extension.type)) {
    case ExtensionType::kBackingFormat:
      if (extension.data.size() > kMaxBackingFormatBytes) {
        return invalid(fmt::format("ERROR: ext_backing_format: len={} too large (>=16)", extension.data.size()),
                       extension.offset);
      }
      header.backing_format = text_of(extension.data);
      return {};
    case ExtensionType::kFeatureNameTable:
      header.feature_names = parse_feature_names(extension.data);
      return {};
    case ExtensionType::kBitmaps:
      return parse_bitmaps(extension, header);
    case ExtensionType::kEncryptionHeader:
      return parse_encryption(extension, header);
    case ExtensionType::kDataFileName:
      header.data_file = text_of(extension.data);
      return {};
    default:
      header.unknown_extensions.push_back(
          {.type = extension.type, .data = {extension.data.begin(), extension.data.end()}});
      return {};
  }
}

Result<void> parse_extensions(std::span<const std::byte> area, Header& header) {
  ExtensionReader reader(area, header.header_length);
  while (const auto extension = COIMG_TRY(reader.next())) COIMG_TRY(parse_extension(*extension, header));
  return {};
}

// --- validating ----------------------------------------------------------------------------------------------------

/// Refuses incompatible features that have no meaning here, by the names that the image has for them. They may change
/// what the rest of the header means, so this comes before anything else is complained about.
Result<void> check_unknown_features(std::span<const std::byte> extension_area, const Header& header) {
  uint64_t unknown = header.incompatible_features & ~uint64_t{kKnownIncompatible};
  if (unknown == 0) return {};

  std::string list;
  auto append = [&list](std::string_view item) { list.append(list.empty() ? "" : ", ").append(item); };
  ExtensionReader reader(extension_area, header.header_length);
  for (;;) {
    const auto extension = reader.next();
    if (!extension.ok() || !*extension) break;
    if (static_cast<ExtensionType>((*extension)->type) != ExtensionType::kFeatureNameTable) continue;
    for (const FeatureName& feature : parse_feature_names((*extension)->data)) {
      if (feature.kind != 0 || feature.bit >= 64 || !(unknown >> feature.bit & 1)) continue;
      append(feature.name);
      unknown &= ~(uint64_t{1} << feature.bit);
    }
  }
  if (unknown != 0) append(fmt::format("Unknown incompatible feature: {:x}", unknown));
  return refused(ENOTSUP, "Unsupported qcow2 feature(s): " + list, offsetof(DiskHeaderV3, incompatible_features));
}

Result<void> check_compression_type(const Header& header) {
  const bool has_bit = (header.incompatible_features & kCompressionType) != 0;
  switch (header.compression_type) {
    case CompressionType::kZlib:
      if (!has_bit) return {};
      return invalid("qcow2: Compression type incompatible feature bit must not be set",
                     offsetof(DiskHeaderV3, incompatible_features));
    case CompressionType::kZstd:
      if (has_bit) return {};
      return invalid("qcow2: Compression type incompatible feature bit must be set",
                     offsetof(DiskHeaderV3, incompatible_features));
  }
  return refused(ENOTSUP, fmt::format("qcow2: unknown compression type: {}", unsigned(header.compression_type)),
                 offsetof(DiskHeaderV3, compression_type));
}

Result<void> check_encryption(const Header& header) {
  const auto method = static_cast<uint32_t>(header.crypt_method);
  if (method > static_cast<uint32_t>(CryptMethod::kLuks)) {
    return invalid(fmt::format("Unsupported encryption method {}", method), offsetof(DiskHeaderV2, crypt_method));
  }
  if (header.crypt_method == CryptMethod::kLuks && !header.encryption) {
    return invalid(fmt::format("Missing CRYPTO header for crypt method {}", method),
                   offsetof(DiskHeaderV2, crypt_method));
  }
  return {};
}

Result<void> check_refcount_table(const Header& header, const HeaderTolerance& tolerance) {
  const uint64_t clusters = header.refcount_table_clusters;
  if (clusters == 0 && !tolerance.no_refcount_table)
    return invalid("Image does not contain a reference count table", offsetof(DiskHeaderV2, refcount_table_clusters));
  const uint64_t bytes = clusters << header.cluster_bits;
  if (bytes > kMaxRefcountTableBytes)
    return refused(EFBIG, "Reference count table too large", offsetof(DiskHeaderV2, refcount_table_clusters));
  const uint64_t offset = header.refcount_table_offset.v;
  if (!is_aligned(offset, header.geometry().cluster_size()) || !range_within(offset, bytes, kMaxTableEnd)) {
    return invalid("Reference count table offset invalid", offsetof(DiskHeaderV2, refcount_table_offset));
  }
  return {};
}

Result<void> check_snapshot_table(const Header& header, const HeaderTolerance& tolerance) {
  if (header.nb_snapshots > kMaxSnapshots && !tolerance.too_many_snapshots)
    return refused(EFBIG, "Snapshot table too large", offsetof(DiskHeaderV2, nb_snapshots));
  if (header.nb_snapshots == 0) return {};
  const uint64_t offset = header.snapshots_offset.v;
  if (!is_aligned(offset, header.geometry().cluster_size()) ||
      !range_within(offset, kMaxSnapshotTableBytes, kMaxTableEnd)) {
    return invalid("Snapshot table offset invalid", offsetof(DiskHeaderV2, snapshots_offset));
  }
  return {};
}

Result<void> check_l1_table(const Header& header) {
  const Geometry geometry = header.geometry();
  if (header.l1_size > kMaxL1Entries)
    return refused(EFBIG, "Active L1 table too large", offsetof(DiskHeaderV2, l1_size));
  const uint64_t offset = header.l1_table_offset.v;
  if (!is_aligned(offset, geometry.cluster_size()) ||
      !range_within(offset, header.l1_size * sizeof(be64), kMaxTableEnd)) {
    return invalid("Active L1 table offset invalid", offsetof(DiskHeaderV2, l1_table_offset));
  }
  const uint64_t needed = geometry.l1_needed(header.size);
  if (needed > INT_MAX) return refused(EFBIG, "Image is too big", offsetof(DiskHeaderV2, size));
  if (needed > header.l1_size) return invalid("L1 table is too small", offsetof(DiskHeaderV2, l1_size));
  return {};
}

Result<void> check_data_file(const Header& header, bool named_by_user) {
  const bool external = (header.incompatible_features & kExternalDataFile) != 0;
  if (external && !named_by_user && (!header.data_file || header.data_file->empty())) {
    return invalid("'data-file' is required for this image", offsetof(DiskHeaderV3, incompatible_features));
  }
  if (!external && (header.autoclear_features & kRawExternalData)) {
    return invalid("data-file-raw requires a data file", offsetof(DiskHeaderV3, autoclear_features));
  }
  return {};
}

Result<void> check_widths(const Header& header) {
  const uint64_t subcluster_size = header.geometry().cluster_size() / kSubclusters;
  if ((header.incompatible_features & kExtendedL2) && subcluster_size < kSectorSize) {
    return invalid(fmt::format("Unsupported subcluster size: {}", subcluster_size),
                   offsetof(DiskHeaderV2, cluster_bits));
  }
  if (header.refcount_order > kMaxRefcountOrder) {
    return invalid("Reference count entry width too large; may not exceed 64 bits",
                   offsetof(DiskHeaderV3, refcount_order));
  }
  return {};
}

// --- encoding ------------------------------------------------------------------------------------------------------

/// Appends structures and zeros to a buffer that may not grow beyond a cluster; overrunning it is told at the end.
class ClusterWriter {
 public:
  explicit ClusterWriter(uint64_t cluster_size) : bytes_(cluster_size) {}

  void append(std::span<const std::byte> data) {
    if (data.size() <= bytes_.size() - std::min(position_, bytes_.size())) {
      std::ranges::copy(data, bytes_.begin() + static_cast<ptrdiff_t>(position_));
    }
    position_ += data.size();
  }
  template <typename T>
  void append_struct(const T& value) {
    append(std::as_bytes(std::span(&value, 1)));
  }
  void pad() { position_ = align_up(position_, 8); }

  void append_extension(uint32_t type, std::span<const std::byte> data) {
    append_struct(DiskExtension{.type = type, .length = static_cast<uint32_t>(data.size())});
    append(data);
    pad();
  }
  void append_extension(ExtensionType type, std::span<const std::byte> data) {
    append_extension(static_cast<uint32_t>(type), data);
  }

  [[nodiscard]] uint64_t position() const { return position_; }
  [[nodiscard]] bool fits() const { return position_ <= bytes_.size(); }
  [[nodiscard]] std::vector<std::byte>& bytes() { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
  uint64_t position_ = 0;
};

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

DiskHeaderV3 encode_fixed_fields(const Header& header) {
  DiskHeaderV3 disk{};
  disk.v2.magic = kMagic;
  disk.v2.version = header.version;
  disk.v2.cluster_bits = header.cluster_bits;
  disk.v2.size = header.size;
  disk.v2.crypt_method = static_cast<uint32_t>(header.crypt_method);
  disk.v2.l1_size = header.l1_size;
  disk.v2.l1_table_offset = header.l1_table_offset.v;
  disk.v2.refcount_table_offset = header.refcount_table_offset.v;
  disk.v2.refcount_table_clusters = header.refcount_table_clusters;
  disk.v2.nb_snapshots = header.nb_snapshots;
  disk.v2.snapshots_offset = header.snapshots_offset.v;
  disk.incompatible_features = header.incompatible_features;
  disk.compatible_features = header.compatible_features;
  disk.autoclear_features = header.autoclear_features;
  disk.refcount_order = header.refcount_order;
  disk.header_length = static_cast<uint32_t>(kHeaderLengthV3 + align_up(header.unknown_fields.size(), 8));
  disk.compression_type = static_cast<uint8_t>(header.compression_type);
  return disk;
}

std::vector<std::byte> encode_feature_names(const std::vector<FeatureName>& names) {
  std::vector<DiskFeatureName> table(names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    table[i] = {.kind = names[i].kind, .bit = names[i].bit, .name = {}};
    std::memcpy(table[i].name, names[i].name.data(), std::min(names[i].name.size(), sizeof(table[i].name)));
  }
  const auto bytes = std::as_bytes(std::span(table));
  return {bytes.begin(), bytes.end()};
}

void append_extensions(const Header& header, ClusterWriter& writer) {
  if (!header.backing_format.empty()) {
    writer.append_extension(ExtensionType::kBackingFormat, bytes_of(header.backing_format));
  }
  if (header.data_file) writer.append_extension(ExtensionType::kDataFileName, bytes_of(*header.data_file));
  if (header.encryption) {
    const DiskEncryption disk{.offset = header.encryption->offset.v, .bytes = header.encryption->bytes};
    writer.append_extension(ExtensionType::kEncryptionHeader, std::as_bytes(std::span(&disk, 1)));
  }
  if (header.version >= 3 && !header.feature_names.empty() &&
      header.geometry().cluster_size() > kNoFeatureTableClusterBytes) {
    writer.append_extension(ExtensionType::kFeatureNameTable, encode_feature_names(header.feature_names));
  }
  if (header.bitmaps) writer.append_extension(ExtensionType::kBitmaps, encode_bitmaps_extension(*header.bitmaps));
  for (const UnknownExtension& extension : header.unknown_extensions) {
    writer.append_extension(extension.type, extension.data);
  }
  writer.append_extension(ExtensionType::kEnd, {});
}

}  // namespace

Result<uint64_t> header_cluster_size(std::span<const std::byte> start) {
  if (start.size() < sizeof(DiskHeaderV2)) return invalid("Image is not in qcow2 format", 0);
  const auto fixed = read_struct<DiskHeaderV2>(start);
  if (fixed.magic != kMagic) return invalid("Image is not in qcow2 format", 0);
  if (fixed.version != 2 && fixed.version != 3) {
    return refused(ENOTSUP, fmt::format("Unsupported qcow2 version {}", uint32_t{fixed.version}),
                   offsetof(DiskHeaderV2, version));
  }
  const uint32_t bits = fixed.cluster_bits;
  if (bits < kMinClusterBits || bits > kMaxClusterBits) {
    return invalid(fmt::format("Unsupported cluster size: 2^{}", bits), offsetof(DiskHeaderV2, cluster_bits));
  }
  return uint64_t{1} << bits;
}

Result<Header> parse_header(std::span<const std::byte> cluster, HeaderTolerance tolerance) {
  const uint64_t cluster_size = COIMG_TRY(header_cluster_size(cluster));
  assert(cluster.size() >= cluster_size);
  cluster = cluster.first(cluster_size);

  Header header = COIMG_TRY(parse_fixed_fields(cluster));
  const uint64_t extensions_end = COIMG_TRY(parse_backing_name(cluster, header));
  const auto extension_area = cluster.first(extensions_end);
  COIMG_TRY(check_unknown_features(extension_area, header));
  COIMG_TRY(check_compression_type(header));
  COIMG_TRY(check_widths(header));
  COIMG_TRY(check_refcount_table(header, tolerance));
  COIMG_TRY(check_snapshot_table(header, tolerance));
  COIMG_TRY(check_l1_table(header));
  COIMG_TRY(parse_extensions(extension_area, header));
  COIMG_TRY(check_encryption(header));
  if (!tolerance.info_only) COIMG_TRY(check_data_file(header, tolerance.data_file_named));
  return header;
}

Result<std::vector<std::byte>> encode_header(const Header& header) {
  assert(header.version == 2 || header.version == 3);
  if (header.backing_file.size() > kMaxBackingNameBytes || header.backing_format.size() > kMaxBackingFormatBytes) {
    return Error::from_errno(EINVAL);
  }
  ClusterWriter writer(header.geometry().cluster_size());
  DiskHeaderV3 fixed = encode_fixed_fields(header);
  if (header.version == 2) {
    writer.append_struct(fixed.v2);
  } else {
    writer.append_struct(fixed);
    writer.append(header.unknown_fields);
    writer.pad();
  }
  append_extensions(header, writer);
  if (!header.backing_file.empty()) {
    fixed.v2.backing_file_offset = writer.position();
    fixed.v2.backing_file_size = static_cast<uint32_t>(header.backing_file.size());
    writer.append(bytes_of(header.backing_file));
  }
  if (!writer.fits()) return Error::from_errno(ENOSPC);
  std::memcpy(writer.bytes().data(), &fixed.v2, sizeof(fixed.v2));
  return std::move(writer.bytes());
}

std::vector<std::byte> encode_bitmaps_extension(const BitmapsExtension& extension) {
  const DiskBitmaps disk{.count = extension.count,
                         .reserved = 0,
                         .directory_bytes = extension.directory_bytes,
                         .directory_offset = extension.directory_offset.v};
  const auto bytes = std::as_bytes(std::span(&disk, 1));
  return {bytes.begin(), bytes.end()};
}

std::optional<uint64_t> find_bitmaps_extension(std::span<const std::byte> cluster) {
  const auto fixed = read_struct<DiskHeaderV3>(cluster);
  const uint64_t backing_name = fixed.v2.backing_file_offset;
  const uint64_t end = backing_name == 0 ? cluster.size() : std::min<uint64_t>(backing_name, cluster.size());
  ExtensionReader reader(cluster.first(end),
                         fixed.v2.version == 2 ? sizeof(DiskHeaderV2) : uint32_t{fixed.header_length});
  std::optional<uint64_t> found;
  for (;;) {
    const auto extension = reader.next();
    if (!extension.ok() || !*extension) return found;
    if (static_cast<ExtensionType>((*extension)->type) == ExtensionType::kBitmaps) found = (*extension)->offset;
  }
}

std::vector<FeatureName> known_feature_names() {
  constexpr uint8_t kIncompatible = 0, kCompatible = 1, kAutoclear = 2;
  return {
      {kIncompatible, 0, "dirty bit"},
      {kIncompatible, 1, "corrupt bit"},
      {kIncompatible, 2, "external data file"},
      {kIncompatible, 3, "compression type"},
      {kIncompatible, 4, "extended L2 entries"},
      {kCompatible, 0, "lazy refcounts"},
      {kAutoclear, 0, "bitmaps"},
      {kAutoclear, 1, "raw external data"},
  };
}

}  // namespace coimg::qcow2
