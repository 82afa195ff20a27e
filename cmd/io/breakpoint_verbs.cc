// break, remove_break, wait_break and resume: requests that stop at events of a fault injector.
#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "cmd/io/verb.h"

namespace coimg {

namespace {

/// The image's fault injector. Errors: ENOTSUP when it has none.
Result<BlockDebugger*> find_injector(IoSession& session) {
  BlockDebugger* const injector = session.image().node().find_debugger();
  if (injector == nullptr) return Error::from_errno(ENOTSUP);
  return injector;
}

IoStatus outcome(IoSession& session, std::string_view failure, const Result<void>& result) {
  if (result.ok()) return IoStatus::kDone;
  return session.complain(fmt::format("{}: {}", failure, std::strerror(result.error().errnum())));
}

IoStatus run_break(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const auto add = [&]() -> Result<void> {
    return COIMG_TRY(find_injector(session))->add_breakpoint(words[0], words[1]);
  };
  return outcome(session, "Could not set breakpoint", add());
}

IoStatus run_remove_break(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const auto remove = [&]() -> Result<void> { return COIMG_TRY(find_injector(session))->remove_breakpoint(words[0]); };
  return outcome(session, fmt::format("Could not remove breakpoint {}", words[0]), remove());
}

IoStatus run_resume(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const auto resume = [&]() -> Result<void> { return COIMG_TRY(find_injector(session))->resume(words[0]); };
  return outcome(session, "Could not resume request", resume());
}

IoStatus run_wait_break(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const auto injector = find_injector(session);
  if (!injector.ok()) return outcome(session, "Could not wait for a request", injector.error());
  const std::string& tag = words[0];
  if (session.wait_until([&] { return (*injector)->is_suspended(tag); })) return IoStatus::kDone;
  return session.complain(fmt::format("Could not wait for a request: none is left that could become '{}'", tag));
}

}  // namespace

std::vector<IoVerb> make_breakpoint_verbs() {
  return {
      {.name = "break",
       .run = run_break,
       .least_words = 2,
       .most_words = 2,
       .syntax = "event tag",
       .summary = "sets a breakpoint on event and tags the stopped request as tag"},
      {.name = "remove_break",
       .run = run_remove_break,
       .least_words = 1,
       .most_words = 1,
       .syntax = "tag",
       .summary = "remove a breakpoint by tag"},
      {.name = "resume",
       .run = run_resume,
       .least_words = 1,
       .most_words = 1,
       .syntax = "tag",
       .summary = "resumes the request tagged as tag"},
      {.name = "wait_break",
       .run = run_wait_break,
       .least_words = 1,
       .most_words = 1,
       .syntax = "tag",
       .summary = "waits for the suspension of a request"},
  };
}

}  // namespace coimg
