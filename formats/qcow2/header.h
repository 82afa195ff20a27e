// The qcow2 header cluster: parse, validate, encode. No I/O.
//
// Format: qcow2, sections "Header", "Header extensions", "Validation table: Header".
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block/util/result.h"
#include "formats/qcow2/format.h"

namespace coimg::qcow2 {

struct UnknownExtension {
  uint32_t type = 0;
  std::vector<std::byte> data;
};
struct BitmapsExtension {
  uint32_t count = 0;
  uint64_t directory_bytes = 0;
  HostOffset directory_offset;
};
struct EncryptionExtension {
  HostOffset offset;
  uint64_t bytes = 0;
};
struct FeatureName {
  uint8_t kind = 0;  ///< 0 incompatible, 1 compatible, 2 autoclear
  uint8_t bit = 0;
  std::string name;
};

/// Everything that the header cluster says, checked.
struct Header {
  uint32_t version = 3;
  uint32_t cluster_bits = 16;
  uint64_t size = 0;  ///< as stored
  CryptMethod crypt_method = CryptMethod::kNone;
  uint32_t l1_size = 0;
  HostOffset l1_table_offset;
  HostOffset refcount_table_offset;
  uint32_t refcount_table_clusters = 0;
  uint32_t nb_snapshots = 0;
  HostOffset snapshots_offset;
  uint64_t incompatible_features = 0, compatible_features = 0, autoclear_features = 0;
  uint32_t refcount_order = kDefaultRefcountOrder;
  uint32_t header_length = kHeaderLengthV3;
  CompressionType compression_type = CompressionType::kZlib;
  std::vector<std::byte> unknown_fields;  ///< bytes from 112 to header_length, kept on rewrite

  std::string backing_file;    ///< empty for none
  std::string backing_format;  ///< empty when not stored
  std::optional<std::string> data_file;
  std::optional<EncryptionExtension> encryption;
  std::optional<BitmapsExtension> bitmaps;  ///< only when the autoclear bit says that they are valid
  bool stale_bitmaps = false;               ///< the extension was there without that bit; dropped on rewrite
  std::vector<FeatureName> feature_names;
  std::vector<UnknownExtension> unknown_extensions;

  [[nodiscard]] Geometry geometry() const {
    return {cluster_bits, refcount_order, (incompatible_features & kExtendedL2) != 0,
            (incompatible_features & kExternalDataFile) != 0};
  }
};

/// What parse_header() lets pass.
struct HeaderTolerance {
  bool no_refcount_table = false;   ///< check can rebuild it
  bool too_many_snapshots = false;  ///< check can discard them
  bool info_only = false;           ///< data file problems do not matter
  bool data_file_named = false;     ///< the user says which it is
};

/// The cluster size that the first 112 bytes claim, checked; what has to be read to parse the header.
/// Errors: EINVAL "Image is not in qcow2 format", ENOTSUP "Unsupported qcow2 version 9",
/// EINVAL "Unsupported cluster size: 2^22".
Result<uint64_t> header_cluster_size(std::span<const std::byte> start);

/// Parses and validates the header cluster; a short file's missing bytes are zeros.
/// Errors: EINVAL or ENOTSUP with qemu-img's words for each case of the validation table.
Result<Header> parse_header(std::span<const std::byte> cluster, HeaderTolerance tolerance);

/// The whole header cluster for `header`, extensions in qemu-img's order, zero padded to the cluster size.
/// Errors: ENOSPC when it does not fit.
Result<std::vector<std::byte>> encode_header(const Header& header);

/// Where in `cluster`, a header cluster that parse_header() accepts, the data of the bitmaps extension begin.
std::optional<uint64_t> find_bitmaps_extension(std::span<const std::byte> cluster);
/// Those data for `extension`.
std::vector<std::byte> encode_bitmaps_extension(const BitmapsExtension& extension);

/// The feature name table that new images get.
std::vector<FeatureName> known_feature_names();

}  // namespace coimg::qcow2
