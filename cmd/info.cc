// info: what an image is, without looking at its data.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "block/open.h"
#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/image_report.h"
#include "cmd/json_writer.h"

namespace coimg {

namespace {

/// Longest chain that --backing-chain follows; opening such an image fails long before.
constexpr size_t kMaxChainLength = 200;

/// One image to look at.
struct Candidate {
  std::string name;
  std::optional<std::string> format = {};
  bool image_opts = false;
};

Error loop_error(const std::string& name) {
  return Error(ELOOP, fmt::format("Backing file '{}' creates an infinite loop.", name));
}

/// Where the backing file of an image called `filename` is. A relative name has no meaning next to options.
std::optional<std::string> find_backing(const std::string& filename, const std::string& stored) {
  const bool absolute = stored.starts_with('/') || !split_protocol(stored).protocol.empty();
  if (filename.starts_with("json:") && !absolute) return std::nullopt;
  return resolve_backing_name(filename, stored);
}

class InfoCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "info"; }
  [[nodiscard]] std::string_view summary() const override { return "Show what an image is"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--object objectdef] [--image-opts] [-f fmt] [--output=ofmt] [--backing-chain] [-U] filename";
  }
  [[nodiscard]] CommandWork work() const override { return CommandWork::kLook; }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  Result<std::vector<ImageReport>> collect(const CommandContext& context) coroutine_fn;
  Result<ImageReport> look_at(const CommandContext& context, const Candidate& candidate) coroutine_fn;
  Result<void> check_new_name(const std::string& name);
  Result<void> check_new_file(const BlockNode& node, const std::string& name);
  [[nodiscard]] std::string render(const std::vector<ImageReport>& reports) const;

  ImageOptions image_;
  std::string output_name_ = "human";
  bool backing_chain_ = false;
  std::string operand_;
  OutputFormat output_ = OutputFormat::kHuman;
  std::set<std::string> seen_names_;
  std::vector<BlockNode::FileIdentity> seen_files_;
};

void InfoCommand::declare(OptionDeclarer& options) {
  image_.declare(options);
  options.text("--output", "FORMAT", output_name_, "human or json");
  options.flag("--backing-chain", backing_chain_, "Show the backing files too, down to the last one");
  options.describe_operands("FILE", "FILE is an image; its data is not looked at.");
}

Result<void> InfoCommand::prepare(const CommandContext& context, std::vector<std::string> operands) {
  operand_ = COIMG_TRY(take_one_operand(context, std::move(operands)));
  output_ = COIMG_TRY(parse_output_format(output_name_));
  return {};
}

Result<int> InfoCommand::run(CommandContext& context) {
  context.console.out(render(COIMG_TRY(collect(context))));
  return 0;
}

/// The image, and with --backing-chain all below it. Each one is opened on its own, so that one is known even when its
/// neighbour is damaged.
Result<std::vector<ImageReport>> InfoCommand::collect(const CommandContext& context) {
  std::vector<ImageReport> reports;
  std::optional<Candidate> next = Candidate{operand_, image_.format, image_.image_opts};
  while (next.has_value()) {
    if (reports.size() == kMaxChainLength) return Error(ELOOP, "the backing chain is too long");
    reports.push_back(COIMG_TRY(look_at(context, *next)));
    next.reset();
    const ImageReport& report = reports.back();
    if (!backing_chain_ || report.info.backing_filename.empty() || report.info.backing_unused) continue;
    if (!report.resolved_backing.has_value()) {
      return Error(EINVAL,
                   fmt::format("Could not determine the path of backing file '{}'", report.info.backing_filename));
    }
    if (!context.registry.trusts_images()) {
      return Error(EPERM, fmt::format("Backing file '{}' is named by an image that is not trusted, and not opened",
                                      report.info.backing_filename));
    }
    next.emplace(Candidate{.name = *report.resolved_backing});
    if (!report.info.backing_format.empty()) next->format = report.info.backing_format;
  }
  return reports;
}

Result<ImageReport> InfoCommand::look_at(const CommandContext& context, const Candidate& candidate) {
  COIMG_TRY(check_new_name(candidate.name));
  const OpenFlags flags{.no_io = true, .no_backing = true, .force_share = image_.force_share};
  const auto node = COIMG_TRY(open_operand(context, candidate.name, candidate.format, candidate.image_opts, flags));
  const auto describe = [&]() coroutine_fn -> Result<ImageReport> {
    COIMG_TRY(check_new_file(*node, candidate.name));
    ImageReport report{.filename = node->filename(), .format = std::string(node->type().name())};
    report.virtual_size = node->length();
    report.info = COIMG_TRY(node->co_info());
    report.allocated_size = COIMG_TRY(node->co_allocated_file_size());
    if (!report.info.backing_filename.empty()) {
      report.resolved_backing = find_backing(report.filename, report.info.backing_filename);
    }
    return report;
  };
  return close_after(*node, describe());
}

/// Refuses a name that the chain already went through.
Result<void> InfoCommand::check_new_name(const std::string& name) {
  if (seen_names_.insert(name).second) return {};
  return loop_error(name);
}

/// The same for the file behind the name: one file may have many names.
Result<void> InfoCommand::check_new_file(const BlockNode& node, const std::string& name) {
  const auto identity = node.file_identity();
  if (!identity.has_value()) return {};
  if (std::find(seen_files_.begin(), seen_files_.end(), *identity) != seen_files_.end()) return loop_error(name);
  seen_files_.push_back(*identity);
  return {};
}

std::string InfoCommand::render(const std::vector<ImageReport>& reports) const {
  if (output_ == OutputFormat::kJson) {
    if (!backing_chain_) return render_json(reports.front()).render();
    JsonValue chain = JsonValue::array();
    for (const ImageReport& report : reports) chain.append(render_json(report));
    return chain.render();
  }
  std::string text;
  for (const ImageReport& report : reports) {
    if (!text.empty()) text += '\n';
    text += render_human(report);
  }
  return text;
}

}  // namespace

std::unique_ptr<Command> make_info_command() { return std::make_unique<InfoCommand>(); }

}  // namespace coimg
