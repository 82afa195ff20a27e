// check: is the metadata of an image consistent, and repairs.
#include <fmt/format.h>

#include <cerrno>

#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/json_writer.h"
#include "cmd/stop_signals.h"

namespace coimg {

namespace {

/// What callers tell apart.
enum ExitCode { kConsistent = 0, kNotChecked = 1, kCorrupt = 2, kLeaks = 3, kNoCheckForFormat = 63 };

/// Findings go to stderr as they come up, whatever the report looks like.
class FindingPrinter final : public CheckReporter {
 public:
  FindingPrinter(Console& console, const std::string& file) : console_(console), file_(file) {}
  void finding(std::string_view line) override { console_.finding(file_, line); }

 private:
  Console& console_;
  const std::string& file_;
};

std::string render_json(const CheckResult& result, const std::string& filename, std::string_view format) {
  JsonValue report = JsonValue::object();
  const auto add_unless_zero = [&report](const char* key, uint64_t value) {
    if (value != 0) report.add(key, value);
  };
  add_unless_zero("image-end-offset", result.image_end_offset);
  add_unless_zero("compressed-clusters", result.compressed_clusters);
  add_unless_zero("total-clusters", result.total_clusters);
  add_unless_zero("corruptions", result.corruptions);
  add_unless_zero("corruptions-fixed", result.corruptions_fixed);
  report.add("check-errors", result.check_errors);
  add_unless_zero("leaks", result.leaks);
  add_unless_zero("leaks-fixed", result.leaks_fixed);
  add_unless_zero("allocated-clusters", result.allocated_clusters);
  report.add("filename", filename);
  report.add("format", format);
  add_unless_zero("fragmented-clusters", result.fragmented_clusters);
  return report.render();
}

std::string render_cluster_line(const CheckResult& result) {
  if (result.total_clusters == 0 || result.allocated_clusters == 0) return "";
  const auto percent = [](uint64_t part, uint64_t whole) {
    return 100.0 * static_cast<double>(part) / static_cast<double>(whole);
  };
  return fmt::format("{}/{} = {:.2f}% allocated, {:.2f}% fragmented, {:.2f}% compressed clusters\n",
                     result.allocated_clusters, result.total_clusters,
                     percent(result.allocated_clusters, result.total_clusters),
                     percent(result.fragmented_clusters, result.allocated_clusters),
                     percent(result.compressed_clusters, result.allocated_clusters));
}

std::string render_human(const CheckResult& result) {
  std::string text;
  if (result.corruptions == 0 && result.leaks == 0 && result.check_errors == 0) {
    text += "No errors were found on the image.\n";
  }
  if (result.corruptions != 0) {
    text += fmt::format(
        "\n{} errors were found on the image.\n"
        "Data may be corrupted, or further writes to the image may corrupt it.\n",
        result.corruptions);
  }
  if (result.leaks != 0) {
    text += fmt::format(
        "\n{} leaked clusters were found on the image.\n"
        "This means waste of disk space, but no harm to data.\n",
        result.leaks);
  }
  if (result.check_errors != 0) {
    text += fmt::format("\n{} internal errors have occurred during the check.\n", result.check_errors);
  }
  text += render_cluster_line(result);
  if (result.image_end_offset != 0) text += fmt::format("Image end offset: {}\n", result.image_end_offset);
  return text;
}

std::string render_repairs(const CheckResult& result) {
  return fmt::format(
      "The following inconsistencies were found and repaired:\n\n"
      "    {} leaked clusters\n"
      "    {} corruptions\n\n"
      "Double checking the fixed image now...\n",
      result.leaks_fixed, result.corruptions_fixed);
}

int exit_code_for(const CheckResult& result) {
  if (result.check_errors != 0) return kNotChecked;
  if (result.corruptions != 0) return kCorrupt;
  return result.leaks != 0 ? kLeaks : kConsistent;
}

class CheckCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "check"; }
  [[nodiscard]] std::string_view summary() const override { return "Check the consistency of an image"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--object objectdef] [--image-opts] [-q] [-f fmt] [--output=ofmt] [-r [leaks | all]] [-T src_cache] [-U] "
           "filename";
  }
  [[nodiscard]] CommandWork work() const override {
    return repair_ == RepairMode::kNone ? CommandWork::kRead : CommandWork::kChange;
  }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  Result<int> check(CommandContext& context, BlockNode& node) coroutine_fn;
  Result<CheckResult> check_and_repair(CommandContext& context, BlockNode& node, const StopSignals& signals)
      coroutine_fn;

  ImageOptions image_;
  bool quiet_ = false;
  std::string output_name_ = "human", cache_name_ = "writeback";
  RepairMode repair_ = RepairMode::kNone;
  std::string operand_;
  OutputFormat output_ = OutputFormat::kHuman;
  CacheMode cache_;
};

void CheckCommand::declare(OptionDeclarer& options) {
  image_.declare(options);
  options.flag("-q", quiet_, "Print no report; findings still go to stderr");
  options.text("--output", "FORMAT", output_name_, "human or json");
  options.text("-T", "CACHE", cache_name_, "Cache mode (default: writeback)");
  const Program& program = options.program();
  options.parsed(
      "-r,--repair", "leaks|all",
      [this, &program](const std::string& what) -> Result<void> {
        if (what != "leaks" && what != "all") {
          return program.usage_error(fmt::format("Unknown option value for -r (expecting 'leaks' or 'all'): {}", what));
        }
        repair_ = what == "all" ? RepairMode::kAll : RepairMode::kLeaks;
        return {};
      },
      "Repair leaked clusters, or everything that can be repaired");
  options.describe_operands(
      "FILE", "Exit codes: 0 consistent, 1 not checked, 2 corrupt, 3 leaks only, 63 no check for this format.");
}

Result<void> CheckCommand::prepare(const CommandContext& context, std::vector<std::string> operands) {
  operand_ = COIMG_TRY(take_one_operand(context, std::move(operands)));
  output_ = COIMG_TRY(parse_output_format(output_name_));
  cache_ = COIMG_TRY(parse_source_cache_mode(cache_name_));
  return {};
}

Result<int> CheckCommand::run(CommandContext& context) {
  OpenFlags flags{.force_share = image_.force_share, .check = true};
  flags.no_backing = !context.registry.trusts_images();  // an overlay can be checked without what is below it
  flags.writable = flags.resizable = repair_ != RepairMode::kNone;
  cache_.apply_to(flags);
  const auto node = COIMG_TRY(open_operand(context, operand_, image_.format, image_.image_opts, flags));
  return close_after(*node, check(context, *node));
}

Result<int> CheckCommand::check(CommandContext& context, BlockNode& node) {
  if (!node.type().supports_check()) {
    return context.fail(kNoCheckForFormat, Error(ENOTSUP, "This image format does not support checks"));
  }
  const StopSignals signals(context, [] {});
  auto checked = check_and_repair(context, node, signals);
  if (!checked.ok() && signals.received() != 0) return context.stopped_by(signals.received());
  const CheckResult result = COIMG_TRY(std::move(checked).with_context("Check failed"));
  if (!quiet_) {
    context.console.out(output_ == OutputFormat::kJson ? render_json(result, operand_, node.type().name())
                                                       : render_human(result));
  }
  if (result.check_errors != 0) context.console.error(Error(EIO, "Check failed").in_file(node.subject()));
  return exit_code_for(result);
}

/// Checks, and after repairs checks again: what counts is the state that is left.
Result<CheckResult> CheckCommand::check_and_repair(CommandContext& context, BlockNode& node,
                                                   const StopSignals& signals) {
  FindingPrinter printer(context.console, node.subject());
  CheckOptions options{
      .repair = repair_, .reporter = &printer, .should_stop = [&signals] { return signals.received() != 0; }};
  const CheckResult first = COIMG_TRY(node.co_check(options));
  if (first.corruptions_fixed == 0 && first.leaks_fixed == 0) return first;

  if (!quiet_ && output_ == OutputFormat::kHuman) context.console.out(render_repairs(first));
  options.repair = RepairMode::kNone;
  CheckResult second = COIMG_TRY(node.co_check(options));
  second.corruptions_fixed = first.corruptions_fixed;
  second.leaks_fixed = first.leaks_fixed;
  return second;
}

}  // namespace

std::unique_ptr<Command> make_check_command() { return std::make_unique<CheckCommand>(); }

}  // namespace coimg
