// io: runs I/O commands on an image, for tests and experiments. The program is this command when its name is qemu-io.
//
// The commands are in cmd/io/: session.h runs them, verb.h lists them.
#include <cerrno>
#include <utility>

#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/io/session.h"
#include "cmd/option_declarer.h"
#include "cmd/tracing.h"

namespace coimg {

namespace {

class IoCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "io"; }
  [[nodiscard]] std::string_view summary() const override { return "Run I/O commands on an image"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--object objectdef] [--image-opts] [-f fmt] [-c command]... [-rsnCmkU] [-i aio] [-t cache] [-d discard] "
           "[filename]";
  }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  void declare_mode(OptionDeclarer& options);

  ImageOptions image_;
  IoOpenMode mode_;
  bool misalign_ = false, read_only_ = false;
  std::optional<std::string> trace_;
  std::vector<std::string> commands_;
  std::optional<std::string> operand_;
};

void IoCommand::declare(OptionDeclarer& options) {
  image_.declare(options);
  options.parsed(
      "-c,--cmd", "COMMAND",
      [this](const std::string& command) -> Result<void> {
        commands_.push_back(command);
        return {};
      },
      "Run this command; can be given again. Without any they come from standard input");
  options.flag("-r,--read-only", read_only_, "Do not open the image for writing");
  options.flag("-m,--misalign", misalign_, "Use memory that is not aligned");
  declare_mode(options);
  if (options.program().as_qemu_io) {  // else these belong to the program
    options.text("-T,--trace", "SPEC", trace_, "Trace to stderr");
    options.action("-V,--version", [] {}, "Show the version and exit");
  }
  options.describe_operands("[FILE]", "The command 'help' lists what there is.");
}

void IoCommand::declare_mode(OptionDeclarer& options) {
  options.flag("-s,--snapshot", mode_.snapshot, "Write to a temporary overlay");
  options.action("-n,--nocache", [this] { mode_.set_direct(); }, "Go around the page cache, the same as -t none");
  options.flag("-C,--copy-on-read", mode_.copy_on_read, "Keep in the image what is read from its backing file");
  options.flag("-k,--native-aio", mode_.native_aio, "The same as -i native");
  options.parsed(
      "-i,--aio", "AIO", [this](const std::string& name) { return mode_.set_aio(name); },
      "threads, native or io_uring");
  options.parsed(
      "-t,--cache", "CACHE", [this](const std::string& name) { return mode_.set_cache(name); },
      "Cache mode; without the option each write is made durable");
  options.parsed(
      "-d,--discard", "DISCARD", [this](const std::string& name) { return mode_.set_discard(name); },
      "unmap: discards are passed on to the host");
}

Result<void> IoCommand::prepare(const CommandContext& context, std::vector<std::string> operands) {
  if (trace_.has_value()) enable_tracing(*trace_, context.console);
  if (operands.size() > 1) return context.program.usage_error("Expecting one image file name");
  if (context.in_batch && commands_.empty()) return Error(EINVAL, "a job has no standard input: give commands with -c");
  if (!operands.empty()) operand_ = std::move(operands.front());
  if (operand_.has_value() && image_.image_opts && image_.format.has_value()) {
    return Error(EINVAL, "--image-opts and -f are mutually exclusive");
  }
  mode_.writable = !read_only_;
  mode_.force_share = image_.force_share;
  return {};
}

Result<int> IoCommand::run(CommandContext& context) {
  IoSession session(context, misalign_);
  if (operand_.has_value()) {
    IoTarget target;
    target.format = image_.format.value_or("");
    if (image_.image_opts) {
      target.options = COIMG_TRY(parse_key_value_options(*operand_, ""));
    } else {
      target.name = operand_;
    }
    COIMG_TRY(session.open(std::move(target), mode_));
  }
  if (commands_.empty()) session.run_script();
  for (const std::string& command : commands_) {
    if (session.quitting()) break;
    session.run_line(command);
  }
  session.finish();
  return session.failed() ? 1 : 0;
}

}  // namespace

std::unique_ptr<Command> make_io_command() { return std::make_unique<IoCommand>(); }

}  // namespace coimg
