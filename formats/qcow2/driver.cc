#include "formats/qcow2/driver.h"

#include <algorithm>
#include <iterator>

#include "block/node.h"
#include "formats/qcow2/create.h"
#include "formats/qcow2/format.h"
#include "formats/qcow2/qcow2.h"

namespace coimg {

namespace {

class Qcow2DriverType final : public DriverType {
 public:
  std::string_view name() const override { return "qcow2"; }
  DriverKind kind() const override { return DriverKind::kFormat; }

  int probe(std::span<const std::byte> head) const override {
    qcow2::DiskHeaderV2 header = {};
    std::memcpy(&header, head.data(), std::min(head.size(), sizeof(header)));  // a cut-off one is no raw image either
    return header.magic == qcow2::kMagic && header.version >= 2 ? 100 : 0;
  }

  Result<std::unique_ptr<BlockDriver>> open(OpenArgs args) const coroutine_fn override {
    return std::unique_ptr<BlockDriver>(COIMG_TRY(qcow2::Qcow2::open(*this, args)));
  }

  /// Nobody else may write to or resize the file, whatever it is opened for: the tables are cached.
  Permissions file_permissions(const OpenFlags& flags) const override {
    Permissions permissions{.used = 0, .shared = kPermAll & ~(kPermWrite | kPermResize)};
    if (!flags.no_io) permissions.used |= kPermConsistentRead;
    if (flags.writable) permissions.used |= kPermWrite | kPermResize;
    return permissions;
  }

  bool supports_create() const override { return true; }
  bool supports_backing() const override { return true; }
  bool supports_compression() const override { return true; }
  bool supports_check() const override { return true; }
  bool supports_data_file() const override { return true; }
  std::optional<DataFilePlan> data_file_of(const std::string&, const CreateOptions& options) const override {
    if (!options.given("data_file")) return std::nullopt;
    return DataFilePlan{.path = options.text("data_file").value_or("")};
  }

  std::vector<CreateOptionSpec> create_options() const override {
    using enum OptionType;
    return {
        {"encryption", kBool, "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"},
        {"encrypt.format", kText, "Encrypt the image, format choices: 'aes', 'luks'"},
        {"encrypt.key-secret", kText, "ID of secret providing qcow AES key or LUKS passphrase"},
        {"encrypt.cipher-alg", kText, "Name of encryption cipher algorithm"},
        {"encrypt.cipher-mode", kText, "Name of encryption cipher mode"},
        {"encrypt.ivgen-alg", kText, "Name of IV generator algorithm"},
        {"encrypt.ivgen-hash-alg", kText, "Name of IV generator hash algorithm"},
        {"encrypt.hash-alg", kText, "Name of encryption hash algorithm"},
        {"encrypt.iter-time", kNumber, "Time to spend in PBKDF in milliseconds"},
        {"cluster_size", kSize, "qcow2 cluster size", "65536"},
        {"extended_l2", kBool, "Extended L2 tables", "off"},
        {"preallocation", kText, "Preallocation mode (allowed values: off, metadata, falloc, full)"},
        {"compression_type", kText, "Compression method used for image cluster compression", "zlib"},
        {"size", kSize, "Virtual disk size"},
        {"compat", kText, "Compatibility level (v2 [0.10] or v3 [1.1])"},
        {"backing_file", kText, "File name of a base image"},
        {"backing_fmt", kText, "Image format of the base image"},
        {"data_file", kText, "File name of an external data file"},
        {"data_file_raw", kBool, "The external data file must stay valid as a raw image"},
        {"lazy_refcounts", kBool, "Postpone refcount updates", "off"},
        {"refcount_bits", kNumber, "Width of a reference count entry in bits", "16"},
    };
  }

  std::vector<CreateOptionSpec> amend_options() const override {
    constexpr std::string_view kAmendable[] = {"size",      "compat",        "backing_file",   "backing_fmt",
                                               "data_file", "data_file_raw", "lazy_refcounts", "refcount_bits"};
    std::vector<CreateOptionSpec> specs;
    for (CreateOptionSpec spec : create_options()) {
      if (std::ranges::find(kAmendable, spec.name) == std::end(kAmendable)) continue;
      spec.default_value = {};
      specs.push_back(spec);
    }
    return specs;
  }

  Result<void> validate_create(const CreateOptions& options) const override {
    COIMG_TRY(qcow2::header_for_options(options));
    return {};
  }

  Result<void> create(BlockNode* file, const std::string& filename, const CreateOptions& options) const
      coroutine_fn override {
    (void)filename;
    return qcow2::create_image(*file, options);
  }

  Result<MeasureResult> measure(const CreateOptions& options, const MeasureRequest& request) const
      coroutine_fn override {
    return qcow2::measure_image(options, request);
  }
};

}  // namespace

std::unique_ptr<DriverType> make_qcow2_driver_type() { return std::make_unique<Qcow2DriverType>(); }

}  // namespace coimg
