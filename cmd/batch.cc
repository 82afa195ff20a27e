// batch: many commands in one process, in an order that their dependencies allow.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>
#include <thread>

#include "cmd/batch/jobs.h"
#include "cmd/batch/report.h"
#include "cmd/batch/run.h"
#include "cmd/batch/state.h"
#include "cmd/batch/text_file.h"
#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/sizes.h"

namespace coimg {

namespace {

constexpr unsigned kMaxJobsAtOnce = 256;  ///< each has images open and buffers of its own
constexpr unsigned kMaxRetries = 1000;

Result<void> parse_count(const char* option, const std::string& text, unsigned least, unsigned most, unsigned& target) {
  unsigned value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    return Error(EINVAL, fmt::format("{} has to be a number from {} to {}", option, least, most));
  }
  target = value;
  return {};
}

/// Each line with "[JOB] " in front.
std::string mark_lines(const std::string& id, std::string_view lines) {
  std::string text;
  while (!lines.empty()) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    text += fmt::format("[{}] {}\n", id, lines.substr(0, end));
    lines.remove_prefix(std::min(end + 1, lines.size()));
  }
  return text;
}

class BatchCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "batch"; }
  [[nodiscard]] std::string_view summary() const override { return "Run many commands, in an order that they allow"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[-j jobs] [-r rate_limit] [--retries n] [-k] [--state file [--resume]] [-n] [--output=ofmt] filename";
  }
  [[nodiscard]] bool known_to_qemu_img() const override { return false; }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  Result<std::vector<BatchJob>> read_jobs() const;
  Result<int> report(CommandContext& context, const std::vector<BatchJob>& jobs, BatchRun& run) const;
  void show_end(Console& console, const BatchJob& job, BatchResult& result) const;

  BatchOptions options_;
  std::optional<std::string> state_path_;
  bool resume_ = false, dry_run_ = false;
  std::string output_name_ = "human";
  OutputFormat output_ = OutputFormat::kHuman;
  std::string file_;
};

void BatchCommand::declare(OptionDeclarer& options) {
  options_.jobs = std::clamp(std::thread::hardware_concurrency(), 1U, kMaxJobsAtOnce);
  options.parsed(
      "-j,--jobs", "N",
      [this](const std::string& text) { return parse_count("--jobs", text, 1, kMaxJobsAtOnce, options_.jobs); },
      "How many run at once (default: the number of processors)");
  options.parsed(
      "-r,--rate-limit", "RATE",
      [this](const std::string& text) -> Result<void> {
        options_.rate_limit = COIMG_TRY(parse_operand_size(text, "rate limit"));
        return {};
      },
      "Bytes a second that all jobs together write to images");
  options.parsed(
      "--retries", "N",
      [this](const std::string& text) { return parse_count("--retries", text, 0, kMaxRetries, options_.retries); },
      "How often a job that fails is run again, when it does not say itself");
  options.flag("-k,--keep-going", options_.keep_going, "After a failure go on with jobs that do not depend on it");
  options.text("--state", "FILE", state_path_, "Remember in this file what was done");
  options.flag("--resume", resume_, "Leave out what was done, as the state file says and the outputs are unchanged");
  options.flag("-n,--dry-run", dry_run_, "Only show what would be run");
  options.text("--output", "FORMAT", output_name_, "human or json");
  options.describe_operands("FILE",
                            "FILE has a JSON object a job and line, or a list of jobs in YAML; - is standard input.");
}

Result<void> BatchCommand::prepare(const CommandContext& context, std::vector<std::string> operands) {
  if (operands.size() != 1) return context.program.usage_error("Expecting one file of jobs");
  file_ = std::move(operands.front());
  output_ = COIMG_TRY(parse_output_format(output_name_));
  if (resume_ && !state_path_.has_value()) return Error(EINVAL, "--resume needs --state");
  return {};
}

Result<int> BatchCommand::run(CommandContext& context) {
  const std::vector<BatchJob> jobs = COIMG_TRY(read_jobs().with_context(file_));
  BatchState state;
  // A dry run leaves the state as it is.
  if (state_path_.has_value() && (resume_ || !dry_run_)) COIMG_TRY(state.open(*state_path_, resume_));
  BatchRun* current = nullptr;
  BatchRun run(context, jobs, state, options_,
               [&](size_t index) { show_end(context.console, jobs[index], current->results()[index]); });
  current = &run;
  if (resume_) run.take_over();
  if (dry_run_) {
    context.console.out(render_batch_plan(jobs, run.results()));
    return 0;
  }
  const Result<void> ran = run.run();
  const Result<int> exit_code = report(context, jobs, run);
  if (!ran.ok()) return ran.error();
  return exit_code;
}

Result<std::vector<BatchJob>> BatchCommand::read_jobs() const {
  const std::string text = COIMG_TRY(read_text_file(file_ == "-" ? "/dev/stdin" : file_));
  const auto commands = make_commands();
  return parse_batch_jobs(text, [&commands](std::string_view name) {
    return std::ranges::any_of(commands, [name](const auto& command) { return command->name() == name; });
  });
}

/// People see the output of a job when it ends, and it is not kept; the JSON report has it.
void BatchCommand::show_end(Console& console, const BatchJob& job, BatchResult& result) const {
  if (output_ == OutputFormat::kHuman) console.out(mark_lines(job.id, result.output.out));
  if (console.format().json_log) {
    console.pass_on_err(result.output.err);
  } else if (output_ == OutputFormat::kHuman) {
    console.pass_on_err(mark_lines(job.id, result.output.err));
  }
  if (output_ == OutputFormat::kHuman) result.output = {};
  console.flush_out();
}

Result<int> BatchCommand::report(CommandContext& context, const std::vector<BatchJob>& jobs, BatchRun& run) const {
  const int exit_code = worst_exit_code(run.results());
  const BatchReport report{
      .jobs = jobs, .results = run.results(), .most_at_once = run.most_at_once(), .exit_code = exit_code};
  context.console.out(output_ == OutputFormat::kJson
                          ? render_batch_json(report)
                          : render_batch_table(report, isatty(STDOUT_FILENO) == 1, Paint::for_stream(stdout)));
  return exit_code;
}

}  // namespace

std::unique_ptr<Command> make_batch_command() { return std::make_unique<BatchCommand>(); }

}  // namespace coimg
