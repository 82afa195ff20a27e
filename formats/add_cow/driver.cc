#include "formats/add_cow/driver.h"

#include "block/node.h"
#include "formats/add_cow/add_cow.h"
#include "formats/add_cow/create.h"

namespace coimg {

namespace {

class AddCowDriverType final : public DriverType {
 public:
  std::string_view name() const override { return "add-cow"; }
  DriverKind kind() const override { return DriverKind::kFormat; }

  int probe(std::span<const std::byte> head) const override { return add_cow::has_magic(head) ? 100 : 0; }

  Result<std::unique_ptr<BlockDriver>> open(OpenArgs args) const coroutine_fn override {
    return std::unique_ptr<BlockDriver>(COIMG_TRY(add_cow::AddCow::open(*this, args)));
  }

  bool supports_create() const override { return true; }
  bool supports_backing() const override { return true; }
  bool supports_check() const override { return true; }
  bool supports_data_file() const override { return true; }
  bool shares_with_backing() const override { return true; }
  std::optional<DataFilePlan> data_file_of(const std::string& filename, const CreateOptions& options) const override {
    if (options.text("image_file").value_or("").empty()) return std::nullopt;  // amend changes something else
    return add_cow::image_file_plan(filename, options);
  }

  std::vector<CreateOptionSpec> create_options() const override { return add_cow::create_option_specs(); }

  std::vector<CreateOptionSpec> amend_options() const override {
    std::vector<CreateOptionSpec> specs;
    for (CreateOptionSpec spec : create_options()) {
      if (spec.name == "size" || spec.name == "cluster_size") continue;
      spec.default_value = {};
      specs.push_back(spec);
    }
    return specs;
  }

  Result<void> validate_create(const CreateOptions& options) const override {
    COIMG_TRY(add_cow::header_for_options(options));
    return {};
  }

  Result<void> complete_create_options(const DriverRegistry& registry, const std::string& filename, bool look_at_files,
                                       CreateOptions& options) const coroutine_fn override {
    return add_cow::complete_create_options(registry, filename, look_at_files, options);
  }

  Result<void> create(BlockNode* file, const std::string&, const CreateOptions& options) const coroutine_fn override {
    return add_cow::create_image(*file, options);
  }

  Result<MeasureResult> measure(const CreateOptions& options, const MeasureRequest& request) const
      coroutine_fn override {
    return add_cow::measure_image(options, request.virtual_size);
  }
};

}  // namespace

std::unique_ptr<DriverType> make_add_cow_driver_type() { return std::make_unique<AddCowDriverType>(); }

}  // namespace coimg
