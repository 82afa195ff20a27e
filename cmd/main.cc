// The program: sets up what all commands need, runs one, and ends with its exit code.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "block/driver.h"
#include "block/warnings.h"
#include "cmd/cli.h"
#include "cmd/command.h"
#include "cmd/console.h"
#include "cmd/program.h"
#include "cmd/stop_signals.h"
#include "cmd/tracing.h"
#include "coroutine/coroutine.h"
#include "coroutine/main_loop.h"
#include "formats/registry.h"

namespace coimg {
namespace {

/// A caller may have closed the standard streams. An image opened as descriptor 1 would then take what is printed, so
/// they are filled with something that refuses to be used.
void reserve_standard_descriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) >= 0) continue;
    const int flags = fd == STDIN_FILENO ? O_WRONLY : O_RDONLY;
    if (open("/dev/null", flags) != fd) std::abort();  // the lowest free number is `fd`
  }
}

/// stdio would write lists and maps of any length by 4 KiB.
void enlarge_output_buffer() {
  static char buffer[64 * 1024];
  if (isatty(STDOUT_FILENO) == 0) static_cast<void>(std::setvbuf(stdout, buffer, _IOFBF, sizeof buffer));
}

void set_up_process() {
  reserve_standard_descriptors();
  enlarge_output_buffer();
  signal(SIGPIPE, SIG_IGN);  // a closed pipe is a write error
  signal(SIGXFSZ, SIG_IGN);  // so is a file that has reached its limit
  init_tracing();
  MainLoop::init();
  MainLoop::set_signal_handler(SIGUSR1, [] {});  // asks for progress; must never end the program
}

int run_command(CommandContext& context, Command& command) {
  int exit_code = 0;
  run_in_main_loop([&]() coroutine_fn {
    const Result<int> result = command.run(context);
    exit_code = result.ok() ? *result : context.fail(1, result.error());
  });
  return exit_code;
}

int run_program(CommandContext& context, const std::vector<std::string>& words) {
  CommandLine line(context);
  const std::optional<int> early = line.parse(words);
  int exit_code = early.has_value() ? *early : run_command(context, line.command());
  const Result<void> written = context.console.finish();
  if (!written.ok()) {
    context.console.error(written.error());
    if (exit_code == 0) exit_code = 1;
  }
  return exit_code;
}

}  // namespace
}  // namespace coimg

int main(int argc, char** argv) {
  using namespace coimg;
  set_up_process();
  DriverRegistry registry;
  register_builtin_drivers(registry);
  const Program program = Program::of_process(argc > 0 ? argv[0] : nullptr);
  const bool for_scripts = program.as_qemu_img || program.as_qemu_io;
  Console console(program.name, !for_scripts, for_scripts ? Paint() : Paint::for_stream(stderr));
  set_warning_sink([&console](std::string_view file, const std::string& lines) {
    auto* const of_job = static_cast<Console*>(Coroutine::inherited());  // set by a batch
    (of_job != nullptr ? *of_job : console).warning_lines(file, lines);
  });
  CommandContext context{.registry = registry, .console = console, .program = program};
  const int exit_code = run_program(context, std::vector<std::string>(argv + (argc > 0), argv + argc));
  if (context.fatal_signal != 0) die_of_signal(context.fatal_signal);
  return exit_code;
}
