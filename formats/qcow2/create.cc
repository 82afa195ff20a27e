// New images are made as QEMU makes them, so that both lie on disk alike: first a disk of size 0,
//
//     cluster 0       1                 2
//     | header        | refcount table  | refcount block |
//
// then it is grown to its size, which puts the L1 table behind, and last the backing file is named: naming it earlier
// would make growing hide its contents.
#include "formats/qcow2/create.h"

#include <fmt/format.h>

#include <bit>
#include <optional>
#include <utility>

#include "block/util/buffer.h"
#include "block/util/math.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {

constexpr HostCluster kRefcountTableCluster{1}, kRefcountBlockCluster{2};
constexpr uint64_t kInitialClusters = 3;

Error bad_value(std::string_view parameter, std::string_view value) {
  return {EINVAL, fmt::format("Parameter '{}' does not accept value '{}'", parameter, value)};
}

Error needs_version_3(std::string_view what) {
  return {EINVAL, fmt::format("{} and above (use version=v3 or greater)", what)};
}

Result<uint32_t> version_of(const CreateOptions& options) {
  const std::string compat = options.text("compat").value_or("1.1");
  if (compat == "0.10" || compat == "v2") return 2;
  if (compat == "1.1" || compat == "v3") return 3;
  return bad_value("version", compat);
}

Result<CompressionType> compression_type_of(const CreateOptions& options) {
  const std::string type = options.text("compression_type").value_or("zlib");
  if (type == "zlib") return CompressionType::kZlib;
  if (type == "zstd") return CompressionType::kZstd;
  return bad_value("compression-type", type);
}

Result<bool> preallocates(const CreateOptions& options) {
  const std::string mode = options.text("preallocation").value_or("off");
  if (mode == "off") return false;
  if (mode == "metadata" || mode == "falloc" || mode == "full") return true;
  return bad_value("preallocation", mode);
}

Result<uint32_t> cluster_bits_of(const CreateOptions& options) {
  const uint64_t size = options.number("cluster_size").value_or(65536);
  if (!std::has_single_bit(size) || size < (1u << kMinClusterBits) || size > (1u << kMaxClusterBits)) {
    return Error(EINVAL, "Cluster size must be a power of two between 512 and 2048k");
  }
  return static_cast<uint32_t>(std::countr_zero(size));
}

Result<uint32_t> refcount_order_of(const CreateOptions& options) {
  const uint64_t bits = options.number("refcount_bits").value_or(16);
  if (!std::has_single_bit(bits) || bits > 64) {
    return Error(EINVAL, "Refcount width must be a power of two and may not exceed 64 bits");
  }
  return static_cast<uint32_t>(std::countr_zero(bits));
}

Result<void> check_virtual_size(const Geometry& geometry, uint64_t size) {
  if (size > kMaxFileOffset - kSectorSize || geometry.l1_needed(size) > kMaxL1Entries) {
    return Error(EFBIG, "The image size is too large for file format 'qcow2' (try using a larger cluster size)");
  }
  return {};
}

/// Combinations that the format rules out, then features that are not there.
Result<void> check_features(const CreateOptions& options, const Header& header, bool preallocated) {
  const bool has_backing = options.given("backing_file");
  const bool extended_l2 = options.boolean("extended_l2");
  if (extended_l2 && header.version < 3) {
    return needs_version_3("Extended L2 entries are only supported with compatibility level 1.1");
  }
  if (extended_l2 && header.geometry().cluster_size() < 16384) {
    return Error(EINVAL, "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes");
  }
  if (has_backing && preallocated && !extended_l2) {
    return Error(EINVAL, "Backing file and preallocation can only be used at the same time if extended_l2 is on");
  }
  if (options.boolean("data_file_raw") && !options.given("data_file")) {
    return Error(EINVAL, "data-file-raw requires data-file");
  }
  if (options.boolean("data_file_raw") && has_backing) {
    return Error(EINVAL, "Backing file and data-file-raw cannot be used at the same time");
  }
  if (options.given("encrypt.format") || options.boolean("encryption")) {
    if (!options.given("encrypt.key-secret")) {
      return Error(EINVAL, "Parameter 'encrypt.key-secret' is required for cipher");
    }
    return Error(ENOTSUP, "encryption is not supported yet");
  }
  if (extended_l2) return Error(ENOTSUP, "extended L2 entries are not supported yet");
  if (options.given("data_file")) return Error(ENOTSUP, "external data files are not supported yet");
  if (preallocated) {
    return Error(ENOTSUP, fmt::format("preallocation mode '{}' is not supported yet for file format 'qcow2'",
                                      *options.text("preallocation")));
  }
  return {};
}

/// Header, refcount table and the block that counts these three clusters.
Result<void> write_initial_clusters(BlockNode& file, const Header& header) coroutine_fn {
  const Geometry geometry = header.geometry();
  const uint64_t cluster = geometry.cluster_size();
  const std::vector<std::byte> encoded = COIMG_TRY(encode_header(header));

  AlignedBuffer image = AlignedBuffer::zeroed(kInitialClusters * cluster);
  std::memcpy(image.data(), encoded.data(), encoded.size());
  const be64 slot = geometry.host_offset(kRefcountBlockCluster).v;
  std::memcpy(image.data() + geometry.host_offset(kRefcountTableCluster).v, &slot, sizeof(slot));
  std::byte* const block = image.data() + geometry.host_offset(kRefcountBlockCluster).v;
  for (uint64_t i = 0; i < kInitialClusters; ++i) write_refcount(block, i, header.refcount_order, 1);
  COIMG_TRY(file.co_pwrite(0, image.span()));
  return file.co_flush();
}

Result<void> grow_to(const DriverType& type, BlockNode& file, uint64_t size) coroutine_fn {
  DriverType::OpenArgs args;
  Options no_options;
  args.file = &file;
  args.filename = file.filename();
  args.options = &no_options;
  args.flags = file.flags();
  args.flags.no_backing = true;
  std::unique_ptr<Qcow2> image = COIMG_TRY(Qcow2::open(type, args));
  auto grown = image->truncate(size, Preallocation::kOff);
  auto closed = image->close();
  if (!grown.ok()) return grown;
  return closed;
}

Result<void> name_backing_file(BlockNode& file, const Header& initial, const CreateOptions& options) coroutine_fn {
  std::vector<std::byte> cluster(initial.geometry().cluster_size());
  COIMG_TRY(file.co_pread(0, cluster));
  Header header = COIMG_TRY(parse_header(cluster, {}));
  header.backing_file = options.text("backing_file").value_or("");
  header.backing_format = options.text("backing_fmt").value_or("");
  COIMG_TRY(file.co_pwrite(0, COIMG_TRY(encode_header(header))));
  return file.co_flush();
}

}  // namespace

Result<Header> header_for_options(const CreateOptions& options) {
  Header header;
  header.version = COIMG_TRY(version_of(options));
  header.compression_type = COIMG_TRY(compression_type_of(options));
  const bool preallocated = COIMG_TRY(preallocates(options));
  header.cluster_bits = COIMG_TRY(cluster_bits_of(options));

  const bool lazy_refcounts = options.boolean("lazy_refcounts");
  header.refcount_order = COIMG_TRY(refcount_order_of(options));
  if (header.version < 3) {
    if (lazy_refcounts) return needs_version_3("Lazy refcounts only supported with compatibility level 1.1");
    if (header.refcount_order != 4) {
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
  }
  COIMG_TRY(check_features(options, header, preallocated));
  COIMG_TRY(check_virtual_size(header.geometry(), options.number("size").value_or(0)));

  if (options.text("backing_file").value_or("").size() > kMaxBackingNameBytes) {
    return Error(EINVAL, "Backing file name too long");
  }
  if (header.version == 2) {
    header.header_length = sizeof(DiskHeaderV2);
  } else {
    if (header.compression_type != CompressionType::kZlib) header.incompatible_features |= kCompressionType;
    if (lazy_refcounts) header.compatible_features |= kLazyRefcounts;
    header.feature_names = known_feature_names();
  }
  header.refcount_table_offset = header.geometry().host_offset(kRefcountTableCluster);
  header.refcount_table_clusters = 1;
  return header;
}

Result<void> create_image(const DriverType& type, BlockNode& file, const CreateOptions& options) {
  const Header header = COIMG_TRY(header_for_options(options));
  const uint64_t size = align_up(options.number("size").value_or(0), kSectorSize);
  COIMG_TRY(write_initial_clusters(file, header));
  if (size != 0) COIMG_TRY(grow_to(type, file, size));
  if (options.given("backing_file")) COIMG_TRY(name_backing_file(file, header, options));
  return {};
}

}  // namespace coimg::qcow2
