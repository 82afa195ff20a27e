#include "cmd/help.h"

#include <fmt/format.h>

#include <algorithm>

namespace coimg {

namespace {

constexpr std::string_view kIntroduction = R"(Creates, converts, checks, compares and inspects disk images.

Standard options:
    -h, --help          show this help and exit
    -V, --version       show the version and exit
    -T, --trace SPEC    trace to stderr: a level (trace, debug, info) or '*' for all
)";

/// What qemu-img does not have.
constexpr std::string_view kOwnOptions = R"(    --log-format FORMAT how messages are written to stderr: text or json
    --progress FORMAT   json: progress as lines of JSON on stderr
    --untrusted         images are hostile: open nothing that they name, and bound resources
)";

constexpr std::string_view kParameters = R"(
Parameters:
  filename      an image: a path, json:{...}, an nbd:// URI, or with --image-opts driver options
  objectdef     TYPE,id=ID[,property=value...], for instance a secret with a passphrase
  fmt           the format of an image; probed when it is not given
  cache         none, writeback, writethrough, directsync or unsafe; the default is writeback, for the target of
                convert unsafe
  src_cache     the same for images that are read
  ofmt          human or json
  options       name=value[,name=value...]; '-o help' lists what a format has
  size          bytes, or with a suffix: k, M, G, T, P or E (powers of 1024)
  -p, -q        show progress; print nothing but errors
  -U            open without locks, also when a running machine uses the image

)";

}  // namespace

std::string program_help(const CommandContext& context, const std::vector<std::unique_ptr<Command>>& commands) {
  std::string text = context.program.version_text();
  text += fmt::format("usage: {} [standard options] command [command options]\n", context.program.name);
  text += kIntroduction;
  if (!context.program.as_qemu_img) text += kOwnOptions;
  text += "\nCommands:\n";
  for (const auto& command : commands) text += fmt::format("  {} {}\n", command->name(), command->syntax());
  text += kParameters;

  std::vector<std::string_view> formats;
  for (const auto& type : context.registry.types()) formats.push_back(type->name());
  std::sort(formats.begin(), formats.end());
  text += fmt::format("Supported formats: {}\n", fmt::join(formats, " "));
  return text;
}

}  // namespace coimg
