// What has nothing to do with images: help, quit, sleep, sigraise, abort.
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>

#include "cmd/io/arguments.h"
#include "cmd/io/verb.h"
#include "cmd/sizes.h"
#include "coroutine/co_sleep.h"

namespace coimg {

namespace {

constexpr int64_t kNsPerMs = 1'000'000;

IoStatus run_help(IoSession& session, std::span<const std::string> words) coroutine_fn {
  if (words.empty()) {
    for (const IoVerb& verb : io_verbs()) session.out(describe_io_verb(verb) + "\n");
    session.out("\nUse 'help commandname' for extended help.\n");
    return IoStatus::kDone;
  }
  const IoVerb* const verb = find_io_verb(words[0]);
  if (verb == nullptr) return session.complain(fmt::format("command {} not found", words[0]));
  session.out(describe_io_verb(*verb) + "\n");
  if (!verb->help.empty()) session.out(fmt::format("\n{}\n", verb->help));
  return IoStatus::kDone;
}

IoStatus run_quit(IoSession& session, std::span<const std::string>) coroutine_fn {
  session.quit();
  return IoStatus::kDone;
}

IoStatus run_sleep(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const auto ms = parse_count(words[0]);
  if (!ms.has_value() || *ms < 0) return session.complain(fmt::format("{} is not a valid number", words[0]));
  co_sleep_ns(ClockType::kMonotonic, std::min(*ms, INT64_MAX / kNsPerMs) * kNsPerMs);
  return IoStatus::kDone;
}

IoStatus run_sigraise(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const auto number = parse_io_number(words[0]);
  if (!number.ok()) return session.complain(number.error());
  if (*number > NSIG) {
    return session.complain(fmt::format("signal argument '{}' is too large to be a valid signal", words[0]));
  }
  session.console().flush_out();  // it may be the last chance
  raise(static_cast<int>(*number));
  return IoStatus::kDone;
}

IoStatus run_abort(IoSession& session, std::span<const std::string>) coroutine_fn {
  session.console().flush_out();
  std::abort();
}

}  // namespace

std::vector<IoVerb> make_process_verbs() {
  return {
      {.name = "abort",
       .run = run_abort,
       .most_words = 0,
       .needs_image = false,
       .summary = "simulate a program crash using abort(3)"},
      {.name = "help",
       .alias = "?",
       .run = run_help,
       .most_words = 1,
       .needs_image = false,
       .syntax = "[command]",
       .summary = "help for one or all commands"},
      {.name = "quit", .alias = "q", .run = run_quit, .needs_image = false, .summary = "exit the program"},
      {.name = "sigraise",
       .run = run_sigraise,
       .least_words = 1,
       .most_words = 1,
       .needs_image = false,
       .syntax = "signal",
       .summary = "raises a signal",
       .help = " The signal is a number. The program gets it as if somebody else had sent it.\n"},
      {.name = "sleep",
       .run = run_sleep,
       .least_words = 1,
       .most_words = 1,
       .needs_image = false,
       .summary = "waits for the given value in milliseconds"},
  };
}

}  // namespace coimg
