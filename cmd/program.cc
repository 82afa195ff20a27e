#include "cmd/program.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace coimg {

namespace {

/// The version of qemu-img whose command line this one follows. Callers enable features by it.
constexpr std::string_view kFollowedVersion = "7.2.0";

}  // namespace

Program Program::of_process(const char* argv0) {
  Program program = from_argv0(argv0);
  const char* const compat = std::getenv("COIMG_COMPAT");
  if (compat == nullptr || program.as_qemu_img || program.as_qemu_io) return program;
  for (const char* const name : {"qemu-img", "qemu-io"}) {
    if (std::string_view(compat) != name) continue;
    program_invocation_short_name = const_cast<char*>(name);  // which warnings begin with
    return from_argv0(name);
  }
  return program;
}

Program Program::from_argv0(const char* argv0) {
  const std::string_view path = argv0 != nullptr && *argv0 != '\0' ? argv0 : "coimg";
  const size_t slash = path.rfind('/');
  Program program;
  program.name = slash == std::string_view::npos ? path : path.substr(slash + 1);
  program.as_qemu_img = program.name.starts_with("qemu-img");
  program.as_qemu_io = program.name.starts_with("qemu-io");
  return program;
}

std::string Program::help_hint() const {
  const char* const command = as_qemu_img ? "qemu-img" : as_qemu_io ? "qemu-io" : "coimg";
  return fmt::format("Try '{} --help' for more information", command);
}

Error Program::usage_error(std::string message) const {
  return Error(EINVAL, std::move(message)).with_hint(help_hint());
}

std::string Program::version_text() const {
  constexpr std::string_view kAbout = "Create, convert, check, compare and inspect disk images";
  if (as_qemu_img || as_qemu_io) {
    return fmt::format("{} version {} (coimg {})\n{}\n", as_qemu_img ? "qemu-img" : "qemu-io", kFollowedVersion,
                       COIMG_VERSION, kAbout);
  }
  return fmt::format("coimg version {} (command line of qemu-img {})\n{}\n", COIMG_VERSION, kFollowedVersion, kAbout);
}

}  // namespace coimg
