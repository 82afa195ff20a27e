// What the creation options ask for, checked in the order in which qemu-img complains.
//
// Format: qcow2, section "Options and defaults".
#include <fmt/format.h>

#include <bit>
#include <utility>

#include "block/util/math.h"
#include "formats/qcow2/create.h"

namespace coimg::qcow2 {

std::optional<uint32_t> find_version(std::string_view compat) {
  if (compat == "0.10" || compat == "v2") return 2;
  if (compat == "1.1" || compat == "v3") return 3;
  return std::nullopt;
}

Result<uint32_t> refcount_order_of(const CreateOptions& options) {
  const uint64_t bits = options.number("refcount_bits").value_or(16);
  if (!std::has_single_bit(bits) || bits > 64) {
    return Error(EINVAL, "Refcount width must be a power of two and may not exceed 64 bits");
  }
  return static_cast<uint32_t>(std::countr_zero(bits));
}

namespace {

constexpr uint64_t kMinExtendedL2ClusterBytes = 16 * kKiB;

Error bad_value(std::string_view parameter, std::string_view value) {
  return {EINVAL, fmt::format("Parameter '{}' does not accept value '{}'", parameter, value)};
}

Error needs_version_3(std::string_view what) {
  return {EINVAL, fmt::format("{} and above (use version=v3 or greater)", what)};
}

std::string compat_of(const CreateOptions& options) { return options.text("compat").value_or("1.1"); }

Result<uint32_t> version_of(const CreateOptions& options) {
  if (const auto version = find_version(compat_of(options))) return *version;
  return bad_value("version", compat_of(options));
}

Result<CompressionType> compression_type_of(const CreateOptions& options) {
  const std::string type = options.text("compression_type").value_or("zlib");
  if (type == "zlib") return CompressionType::kZlib;
  if (type == "zstd") return CompressionType::kZstd;
  return bad_value("compression-type", type);
}

Result<uint32_t> cluster_bits_of(const CreateOptions& options) {
  const uint64_t size = options.number("cluster_size").value_or(65536);
  if (!std::has_single_bit(size) || size < (1u << kMinClusterBits) || size > (1u << kMaxClusterBits)) {
    return Error(EINVAL, "Cluster size must be a power of two between 512 and 2048k");
  }
  return static_cast<uint32_t>(std::countr_zero(size));
}

Result<void> check_virtual_size(const Geometry& geometry, uint64_t size) {
  if (size > kMaxFileOffset - kSectorSize || geometry.l1_needed(size) > kMaxL1Entries) {
    return Error(EFBIG, "The image size is too large for file format 'qcow2' (try using a larger cluster size)");
  }
  return {};
}

/// Refuses version 2 for what it cannot express.
Result<void> check_version_2(const CreateOptions& options, const Header& header) {
  if (header.refcount_order != kDefaultRefcountOrder) {
    return Error(EINVAL,
                 "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or "
                 "greater)");
  }
  if (header.compression_type != CompressionType::kZlib) {
    return needs_version_3("Non-zlib compression type is only supported with compatibility level 1.1");
  }
  if (options.given("data_file")) {
    return needs_version_3("External data files are only supported with compatibility level 1.1");
  }
  return {};
}

Result<void> check_extended_l2_clusters(const CreateOptions& options, const Header& header) {
  if (options.boolean("extended_l2") && header.geometry().cluster_size() < kMinExtendedL2ClusterBytes) {
    return Error(EINVAL, fmt::format("Extended L2 entries are only supported with cluster sizes of at least {} bytes",
                                     kMinExtendedL2ClusterBytes));
  }
  return {};
}

Result<void> check_extended_l2(const CreateOptions& options, const Header& header) {
  if (options.boolean("extended_l2") && header.version < 3) {
    return needs_version_3("Extended L2 entries are only supported with compatibility level 1.1");
  }
  return check_extended_l2_clusters(options, header);
}

Result<void> check_backing(const CreateOptions& options, bool preallocated) {
  const bool has_backing = options.given("backing_file");
  if (has_backing && preallocated && !options.boolean("extended_l2")) {
    return Error(EINVAL, "Backing file and preallocation can only be used at the same time if extended_l2 is on");
  }
  if (options.boolean("data_file_raw") && !options.given("data_file")) {
    return Error(EINVAL, "data-file-raw requires data-file");
  }
  if (options.boolean("data_file_raw") && has_backing) {
    return Error(EINVAL, "Backing file and data-file-raw cannot be used at the same time");
  }
  return {};
}

Result<void> check_encryption(const CreateOptions& options) {
  const auto format = options.text("encrypt.format");
  if (!format && !options.boolean("encryption")) return {};
  if (format && *format != "luks" && *format != "aes") return bad_value("format", *format);
  if (!options.given("encrypt.key-secret")) {
    return Error(EINVAL, "Parameter 'encrypt.key-secret' is required for cipher");
  }
  return Error(ENOTSUP, fmt::format("encryption with {} is not supported", format.value_or("aes")));
}

/// Fails while nothing has been touched when the header cluster has no room for the data file's or the backing file's
/// name.
Result<void> check_header_fits(const Header& header) {
  const auto encoded = encode_header(header);
  if (encoded.ok()) return {};
  Header alone = header;
  alone.backing_file.clear();
  alone.backing_format.clear();
  if (const auto smaller = encode_header(alone); !smaller.ok()) {
    return Error::from_errno(smaller.error().errnum(), "Could not update qcow2 header");
  }
  return Error::from_errno(encoded.error().errnum(), fmt::format("Could not assign backing file '{}' with format '{}'",
                                                                 header.backing_file, header.backing_format));
}

}  // namespace

Result<Preallocation> preallocation_of(const CreateOptions& options) {
  const std::string mode = options.text("preallocation").value_or("off");
  if (const auto found = find_preallocation(mode)) return *found;
  return bad_value("preallocation", mode);
}

Result<Header> header_for_options(const CreateOptions& options) {
  Header header;
  header.version = COIMG_TRY(version_of(options));
  const bool preallocated = COIMG_TRY(preallocation_of(options)) != Preallocation::kOff;
  header.compression_type = COIMG_TRY(compression_type_of(options));
  header.cluster_bits = COIMG_TRY(cluster_bits_of(options));
  COIMG_TRY(check_extended_l2(options, header));
  if (options.boolean("extended_l2")) header.incompatible_features |= kExtendedL2;
  if (header.version < 3 && options.boolean("lazy_refcounts")) {
    return needs_version_3("Lazy refcounts only supported with compatibility level 1.1");
  }
  header.refcount_order = COIMG_TRY(refcount_order_of(options));
  if (header.version < 3) COIMG_TRY(check_version_2(options, header));
  COIMG_TRY(check_backing(options, preallocated));
  COIMG_TRY(check_encryption(options));
  COIMG_TRY(check_virtual_size(header.geometry(), options.number("size").value_or(0)));

  header.size = align_up(options.number("size").value_or(0), kSectorSize);
  header.backing_file = options.text("backing_file").value_or("");
  header.backing_format = options.text("backing_fmt").value_or("");
  if (header.version == 2) {
    header.header_length = sizeof(DiskHeaderV2);
  } else {
    if (header.compression_type != CompressionType::kZlib) header.incompatible_features |= kCompressionType;
    if (options.boolean("lazy_refcounts")) header.compatible_features |= kLazyRefcounts;
    if (options.given("data_file")) {
      header.incompatible_features |= kExternalDataFile;
      header.data_file = options.text("data_file");
    }
    if (options.boolean("data_file_raw")) header.autoclear_features |= kRawExternalData;
    header.feature_names = known_feature_names();
  }
  COIMG_TRY(check_header_fits(header));
  return header;
}

Result<Header> header_for_measure(const CreateOptions& options) {
  Header header;
  header.cluster_bits = COIMG_TRY(cluster_bits_of(options));
  COIMG_TRY(check_extended_l2_clusters(options, header));
  if (options.boolean("extended_l2")) header.incompatible_features |= kExtendedL2;
  const auto version = find_version(compat_of(options));
  if (!version) return Error(EINVAL, fmt::format("Invalid compatibility level: '{}'", compat_of(options)));
  header.version = *version;
  header.refcount_order = COIMG_TRY(refcount_order_of(options));
  if (header.version < 3 && header.refcount_order != kDefaultRefcountOrder) {
    return Error(EINVAL,
                 "Different refcount widths than 16 bits require compatibility level 1.1 or above (use compat=1.1 or "
                 "greater)");
  }
  return header;
}

}  // namespace coimg::qcow2
