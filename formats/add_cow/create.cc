// Format: add-cow, section "create".
#include "formats/add_cow/create.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "block/open.h"
#include "block/util/math.h"

namespace coimg::add_cow {

namespace {

constexpr std::string_view kSuffix = ".add-cow", kImageSuffix = ".img";
/// So that no position in either file passes what the host can address.
constexpr uint64_t kMaxVirtualSize = kMaxFileOffset - kGiB;

/// The value of a text option; an empty one is none.
std::string text_of(const CreateOptions& options, std::string_view name) { return options.text(name).value_or(""); }

Result<void> check_format_name(std::string_view option, const std::string& format) {
  if (format.size() <= kMaxFormatNameBytes) return {};
  return Error(EINVAL, fmt::format("'{}' of {} is no format: names of formats have {} bytes at most", format, option,
                                   kMaxFormatNameBytes));
}

/// A name with a colon in it is that of a protocol, and stays so when the image is opened.
Result<void> check_protocol(const std::string& name) {
  const std::string protocol = split_protocol(name).protocol;
  if (protocol.empty() || protocol == "file") return {};
  return Error(EINVAL, fmt::format("Unknown protocol '{0}'; for a local file write './{1}'", protocol, name));
}

/// "dir/disk.add-cow" gives "disk.img".
Result<std::string> default_image_name(const std::string& filename) {
  const ProtocolName parts = split_protocol(filename);
  std::string_view base = parts.rest;
  base.remove_prefix(base.find_last_of('/') == std::string_view::npos ? 0 : base.find_last_of('/') + 1);
  if (base.ends_with(kSuffix)) base.remove_suffix(kSuffix.size());
  if (base.empty() || !(parts.protocol.empty() || parts.protocol == "file")) {
    return Error(EINVAL, "The image file needs a name: image_file");
  }
  std::string name = fmt::format("{}{}", base, kImageSuffix);
  if (!split_protocol(name).protocol.empty()) name.insert(0, "./");
  if (find_host_file(resolve_backing_name(filename, name))) {
    return Error(EEXIST, fmt::format("'{0}' exists; to use it as the image file, say so: image_file={0}", name));
  }
  return name;
}

/// The size of the image file that is there; 0 for none.
Result<uint64_t> size_of_image_file(const DriverRegistry& registry, const DataFilePlan& plan) coroutine_fn {
  const std::string name = "file:" + plan.path;
  if (!find_host_file(name)) return 0;
  const OpenFlags flags{.no_io = true, .force_share = true};
  const auto node = COIMG_TRY(open_image(registry, {.name = {.text = name}, .format = plan.format, .flags = flags})
                                  .with_context(fmt::format("Could not open image file '{}'", plan.path)));
  const uint64_t bytes = align_down(node->exact_length(), kSectorSize);
  COIMG_TRY(node->co_close());
  return bytes;
}

/// The backing file's format, if it has a magic. Where the guest may have written anything, the user has to say it. A
/// file that cannot be opened is left to those who need it.
Result<std::string> probe_backing(const DriverRegistry& registry, const std::string& name) coroutine_fn {
  const OpenFlags flags{.no_io = true, .no_backing = true, .force_share = true};
  auto opened = open_image(registry, {.name = {.text = name}, .format = {}, .flags = flags});
  if (!opened.ok()) return std::string();
  std::string format((*opened)->type().name());
  COIMG_TRY((*opened)->co_close());
  return format == "raw" ? std::string() : format;
}

}  // namespace

std::vector<CreateOptionSpec> create_option_specs() {
  using enum OptionType;
  return {
      {"size", kSize, "Virtual disk size"},
      {"backing_file", kText, "File name of a base image"},
      {"backing_fmt", kText, "Image format of the base image"},
      {"image_file", kText, "File name of the image that holds the data"},
      {"image_fmt", kText, "Image format of the image file", "raw"},
      {"cluster_size", kSize, "add-cow cluster size", "65536"},
  };
}

Result<Header> header_for_options(const CreateOptions& options) {
  const uint64_t cluster_bytes = options.number("cluster_size").value_or(kDefaultClusterBytes);
  if (!std::has_single_bit(cluster_bytes) || cluster_bytes < uint64_t{1} << kMinClusterBits ||
      cluster_bytes > uint64_t{1} << kMaxClusterBits) {
    return Error(EINVAL, "Cluster size must be a power of two between 4096 and 2048k");
  }
  if (options.number("size").value_or(0) > kMaxVirtualSize) {
    return Error(EFBIG, "The image size is too large for file format 'add-cow'");
  }
  Header header;
  header.geometry.cluster_bits = static_cast<uint32_t>(std::countr_zero(cluster_bytes));
  header.backing_file = text_of(options, "backing_file");
  header.backing_format = text_of(options, "backing_fmt");
  header.image_file = text_of(options, "image_file");
  header.image_format = text_of(options, "image_fmt");
  if (header.image_file.empty()) return Error(EINVAL, "The image file needs a name: image_file");
  if (header.image_format.empty()) return Error(EINVAL, "The image file needs a format: image_fmt");
  if (header.backing_file.empty() != header.backing_format.empty()) {
    return Error(EINVAL, header.backing_file.empty() ? "Backing format cannot be used without backing file"
                                                     : "Backing file specified without backing format");
  }
  COIMG_TRY(check_format_name("backing_fmt", header.backing_format));
  COIMG_TRY(check_format_name("image_fmt", header.image_format));
  COIMG_TRY(check_protocol(header.image_file));
  COIMG_TRY(check_protocol(header.backing_file));
  COIMG_TRY(lay_out_names(header));
  // With nothing below, the image file has it all.
  if (header.backing_file.empty()) header.compatible_features = kAllAllocated;
  return header;
}

Result<void> complete_create_options(const DriverRegistry& registry, const std::string& filename, bool look_at_files,
                                     CreateOptions& options) {
  if (text_of(options, "image_file").empty()) {
    COIMG_TRY(options.set("image_file", COIMG_TRY(default_image_name(filename))));
  }
  if (!look_at_files) return {};
  COIMG_TRY(check_protocol(text_of(options, "image_file")));
  if (!options.given("size")) {
    const uint64_t bytes = COIMG_TRY(size_of_image_file(registry, image_file_plan(filename, options)));
    if (bytes != 0) COIMG_TRY(options.set("size", std::to_string(bytes)));
  }
  const std::string backing = text_of(options, "backing_file");
  if (!backing.empty() && !options.given("backing_fmt")) {
    COIMG_TRY(check_protocol(backing));
    const std::string format = COIMG_TRY(probe_backing(registry, resolve_backing_name(filename, backing)));
    if (!format.empty()) COIMG_TRY(options.set("backing_fmt", format));
  }
  return {};
}

DataFilePlan image_file_plan(const std::string& filename, const CreateOptions& options) {
  const std::string name = resolve_backing_name(filename, text_of(options, "image_file"));
  return {.path = split_protocol(name).rest, .format = text_of(options, "image_fmt")};
}

Result<void> create_image(BlockNode& file, const CreateOptions& options) {
  const Header header = COIMG_TRY(header_for_options(options));
  const uint64_t size = align_up(options.number("size").value_or(0), kSectorSize);
  COIMG_TRY(file.co_truncate(header.geometry.file_bytes(size)));
  COIMG_TRY(file.co_pwrite(0, encode_header(header)));
  return file.co_flush();
}

Result<MeasureResult> measure_image(const CreateOptions& options, uint64_t virtual_size) {
  CreateOptions complete = options;
  if (text_of(complete, "image_file").empty()) COIMG_TRY(complete.set("image_file", "image"));
  COIMG_TRY(complete.set("size", std::to_string(virtual_size)));
  const Header header = COIMG_TRY(header_for_options(complete));
  const uint64_t bytes = align_up(virtual_size, kSectorSize);
  // A raw file is as long as the disk, however little is stored in it.
  const uint64_t both = header.geometry.file_bytes(bytes) + bytes;
  return MeasureResult{.required = both, .fully_allocated = both, .bitmaps = std::nullopt};
}

}  // namespace coimg::add_cow
