// IoSession: what the I/O commands of one run share, and how they are found and run.
//
// The session's own coroutine runs one command after the other. Requests run in coroutines beside it: those of aio_*
// go on while further commands run, the others are waited for. So a command that waits notices when all requests are
// suspended at breakpoints and nobody is left to resume one.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "block/util/result.h"
#include "cmd/command.h"
#include "cmd/io/image.h"
#include "coroutine/co_group.h"
#include "coroutine/co_queue.h"

namespace coimg {

enum class IoStatus { kDone, kFailed };

class IoSession {
 public:
  /// `misalign`: the memory of requests is not aligned, so that O_DIRECT has to copy.
  IoSession(CommandContext& context, bool misalign) : context_(context), misalign_(misalign) {}
  IoSession(const IoSession&) = delete;
  IoSession& operator=(const IoSession&) = delete;

  /// Runs one command, and remembers if it fails. A line without words does nothing.
  void run_line(std::string_view line) coroutine_fn;
  /// Runs commands from standard input, with a prompt, until it ends or one of them is "quit".
  void run_script() coroutine_fn;
  /// Waits for what is in flight and closes the image.
  void finish() coroutine_fn;

  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] bool quitting() const { return quitting_; }
  void quit() { quitting_ = true; }

  // --- for commands -------------------------------------------------------------------------------------------------
  [[nodiscard]] const CommandContext& context() const { return context_; }
  [[nodiscard]] Console& console() const { return context_.console; }
  [[nodiscard]] IoImage& image() { return image_; }
  [[nodiscard]] bool misalign() const { return misalign_; }

  void out(std::string_view text) { console().out(text); }
  /// A complaint that the tool prints to its output.
  IoStatus complain(std::string_view line);
  IoStatus complain(const Error& error) { return complain(error.message()); }
  /// One that is printed like the program's own errors.
  IoStatus fail(const Error& error);

  /// Opens an image and listens to its fault injector.
  Result<void> open(IoTarget target, const IoOpenMode& mode) coroutine_fn;
  Result<void> reopen(const IoImage::Changes& changes) coroutine_fn;
  Result<void> close() coroutine_fn;

  /// Starts `request`, a coroutine_fn, and lets it come as far as it gets by itself.
  void start(std::function<void()> request) coroutine_fn;
  /// The same, and waits until it has ended.
  void run(std::function<void()> request) coroutine_fn;
  /// Waits until `condition` holds, which is looked at when a request ends or is suspended. False: it never will, as
  /// no request is running that is not suspended.
  bool wait_until(const std::function<bool()>& condition) coroutine_fn;
  /// Waits for all requests. If that would be for ever, says so and resumes them; the session has failed then.
  void drain() coroutine_fn;

 private:
  void listen();
  [[nodiscard]] BlockDebugger* debugger() const { return image_.is_open() ? image_.node().find_debugger() : nullptr; }

  CommandContext& context_;
  const bool misalign_;
  IoImage image_;
  CoGroup requests_;
  CoQueue changed_;
  bool failed_ = false, quitting_ = false;
};

}  // namespace coimg
