// The program's options and its commands' as CLI11 apps. The words are split by getopt_compat first, with the apps' own
// tables of options, and CLI11 binds what comes out.
#include "cmd/cli.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iterator>
#include <utility>

#include "cmd/getopt_compat.h"
#include "cmd/help.h"
#include "cmd/option_declarer.h"
#include "cmd/tracing.h"
#include "cmd/untrusted.h"

namespace coimg {

namespace {

constexpr const char* kHelpNames = "-h,--help";
constexpr const char* kVersionNames = "-V,--version";

/// The options of an app, in getopt's terms.
std::vector<GetoptOption> getopt_table(CLI::App& app) {
  std::vector<GetoptOption> table;
  for (const CLI::Option* option : std::as_const(app).get_options()) {
    GetoptOption entry;
    for (const std::string& letter : option->get_snames()) entry.short_letters += letter;
    entry.long_names = option->get_lnames();
    entry.takes_value = option->get_items_expected_max() > 0;
    entry.ends_parsing = option == app.get_help_ptr() || option->check_lname("version");
    table.push_back(std::move(entry));
  }
  return table;
}

/// Hands split words to CLI11, which binds their values. A failure is a disagreement with getopt_compat, not the user's
/// mistake.
Result<void> bind(CLI::App& app, std::vector<std::string> words) {
  std::reverse(words.begin(), words.end());  // the order that CLI11 wants
  try {
    app.parse(std::move(words));
  } catch (const CLI::ParseError& error) {
    return Error(EINVAL, error.what());
  }
  return {};
}

bool is_help(const std::string& word) { return word == "-h" || word == "--help"; }

/// A command's options, and where to read on.
std::string command_help(const CLI::App& app, const std::string& name) {
  return fmt::format("{}\nThe manual page is coimg-{}(1); coimg(1) has what is common to all commands.\n", app.help(),
                     name);
}

/// What is left to say about a split that went wrong.
std::optional<std::string> split_complaint(const GetoptResult& split) {
  switch (split.stop) {
    case GetoptResult::Stop::kUnrecognized:
      return fmt::format("unrecognized option '{}'", split.bad_word);
    case GetoptResult::Stop::kMissingValue:
      return fmt::format("missing argument for option '{}'", split.bad_word);
    default:
      return std::nullopt;
  }
}

}  // namespace

CommandLine::CommandLine(CommandContext& context) : context_(context), commands_(make_commands()) {
  if (!context.program.as_qemu_img) return;
  std::erase_if(commands_, [](const auto& command) { return !command->known_to_qemu_img(); });
}

CommandLine::~CommandLine() = default;

int CommandLine::usage_error(std::string message) {
  return context_.fail(1, context_.program.usage_error(std::move(message)));
}

std::optional<int> CommandLine::parse(std::span<const std::string> words) {
  if (context_.program.as_qemu_io) return parse_command("io", words);
  if (words.empty()) return usage_error("Not enough arguments");

  CLI::App app;
  app.set_help_flag(kHelpNames, "Show this help and exit");
  app.add_flag_callback(kVersionNames, [] {}, "Show the version and exit");
  OptionDeclarer options(app, context_.program);
  const auto trace = [this](const std::string& spec) -> Result<void> {
    enable_tracing(spec, context_.console);
    return {};
  };
  options.parsed("-T,--trace", "SPEC", trace, "Trace to stderr");
  if (!context_.program.as_qemu_img) declare_own_options(options);

  GetoptResult split = parse_like_getopt(getopt_table(app), words, OperandOrder::kStopAtFirst);
  std::optional<std::string> early;
  if (split.stop == GetoptResult::Stop::kEarly) {
    early = split.words.back();
    split.words.pop_back();
  }
  const Result<void> bound = bind(app, split.words);
  if (!bound.ok()) return context_.fail(1, bound.error());
  if (options.first_error().has_value()) return context_.fail(1, *options.first_error());
  if (early.has_value()) {
    context_.console.out(*early == "--help" ? program_help(context_, commands_) : context_.program.version_text());
    return 0;
  }
  if (const auto complaint = split_complaint(split)) return usage_error(*complaint);
  if (split.operands.empty()) return 0;
  const auto ended = parse_command(split.operands.front(), std::span<const std::string>(split.operands).subspan(1));
  if (ended.has_value() || !untrusted_) return ended;
  const Result<void> limited = limit_resources(limits_for_untrusted(command_->work()));
  if (!limited.ok()) return context_.fail(1, limited.error());
  return std::nullopt;
}

/// What qemu-img does not have.
void CommandLine::declare_own_options(OptionDeclarer& options) {
  const auto json_or_text = [this](std::string_view option, bool Console::Format::* wish) {
    return [this, option, wish](const std::string& name) -> Result<void> {
      if (name != "text" && name != "json") {
        return Error(EINVAL, fmt::format("--{} must be used with text or json as argument.", option));
      }
      Console::Format format = context_.console.format();
      format.*wish = name == "json";
      context_.console.set_format(format);
      if (format.json_log) trace_as_json();
      return {};
    };
  };
  options.parsed("--log-format", "FORMAT", json_or_text("log-format", &Console::Format::json_log),
                 "How messages are written to stderr: text or json");
  options.parsed("--progress", "FORMAT", json_or_text("progress", &Console::Format::json_progress),
                 "json: progress as lines of JSON on stderr");
  const auto distrust = [this] {
    untrusted_ = true;
    context_.registry.distrust_images();
  };
  options.action("--untrusted", distrust, "Images are hostile: open nothing that they name, and bound resources");
}

std::optional<int> CommandLine::parse_job(std::span<const std::string> words) {
  return parse_command(words.front(), words.subspan(1));
}

std::optional<int> CommandLine::parse_command(const std::string& name, std::span<const std::string> words) {
  const auto found = std::find_if(commands_.begin(), commands_.end(),
                                  [&name](const auto& candidate) { return candidate->name() == name; });
  if (found == commands_.end()) return usage_error(fmt::format("Command not found: {}", name));
  command_ = found->get();
  context_.console.set_command(name);

  const Program& program = context_.program;
  CLI::App app(std::string(command_->summary()),
               program.as_qemu_io ? program.name : fmt::format("{} {}", program.name, name));
  app.set_help_flag(kHelpNames, "Show this help and exit");
  OptionDeclarer options(app, context_.program);
  command_->declare(options);

  std::vector<std::string> last_word;
  if (command_->last_word_is_operand()) {
    // As coimg, the help can be asked for without operands.
    if (words.size() < 2 && !(words.size() == 1 && !context_.program.as_qemu_img && is_help(words[0]))) {
      return usage_error("Not enough arguments");
    }
    if (words.size() >= 2) {
      last_word.push_back(words.back());
      words = words.first(words.size() - 1);
    }
  }
  GetoptResult split = parse_like_getopt(getopt_table(app), words, OperandOrder::kAnywhere);
  std::move(last_word.begin(), last_word.end(), std::back_inserter(split.operands));
  std::optional<std::string> early;
  if (split.stop == GetoptResult::Stop::kEarly) {
    early = split.words.back();
    split.words.pop_back();
  }
  const Result<void> bound = bind(app, split.words);
  if (!bound.ok()) return context_.fail(1, bound.error());
  if (options.first_error().has_value())
    return context_.fail(command_->option_error_exit_code(), *options.first_error());
  if (options.answer().has_value()) {
    context_.console.out(*options.answer());
    return 0;
  }
  if (early.has_value()) {
    if (*early == "--help") {
      context_.console.out(program.as_qemu_img ? program_help(context_, commands_) : command_help(app, name));
    } else {
      context_.console.out(program.version_text());
    }
    return 0;
  }
  if (program.as_qemu_io && !split.getopt_message.empty()) {
    context_.console.note(fmt::format("{}: {}", program.name, split.getopt_message));
    context_.console.out(command_help(app, name));
    return 1;
  }
  if (const auto complaint = split_complaint(split)) {
    if (!context_.program.as_qemu_img || !command_->forgives_bad_options()) return usage_error(*complaint);
    context_.console.note(fmt::format("{}: {}", name, split.getopt_message));
    context_.console.out(program_help(context_, commands_));
    return 0;
  }
  const Result<void> prepared = command_->prepare(context_, std::move(split.operands));
  if (!prepared.ok()) return context_.fail(1, prepared.error());
  return std::nullopt;
}

}  // namespace coimg
