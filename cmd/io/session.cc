#include "cmd/io/session.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "cmd/io/arguments.h"
#include "cmd/io/verb.h"
#include "coroutine/aio_context.h"
#include "coroutine/co_sleep.h"
#include "coroutine/coroutine.h"

namespace coimg {

namespace {

/// The lines of standard input, read as they come: meanwhile requests go on.
class InputLines {
 public:
  /// Without its newline; nothing at the end. Lines that are too long for any command are cut in two.
  std::optional<std::string> next() coroutine_fn {
    for (;;) {
      const size_t end = buffer_.find('\n');
      if (end != std::string::npos) return take(end, 1);
      if (buffer_.size() >= kMaxLineBytes) return take(kMaxLineBytes, 0);
      if (ended_) return buffer_.empty() ? std::nullopt : std::optional(take(buffer_.size(), 0));
      read_more();
    }
  }

 private:
  static constexpr size_t kMaxLineBytes = size_t{1} << 20;

  std::string take(size_t length, size_t separator) {
    std::string line = buffer_.substr(0, length);
    buffer_.erase(0, length + separator);
    return line;
  }

  void read_more() coroutine_fn {
    yield_until_fd_readable(STDIN_FILENO);
    char piece[4096];
    const ssize_t count = read(STDIN_FILENO, piece, sizeof piece);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (count <= 0) ended_ = true;
    if (count > 0) buffer_.append(piece, static_cast<size_t>(count));
  }

  std::string buffer_;
  bool ended_ = false;
};

/// "2 arguments", "at least 1 arguments", "between 0 and 1 arguments"
std::string expected_words(const IoVerb& verb) {
  if (!verb.most_words) return fmt::format("at least {} arguments", verb.least_words);
  if (*verb.most_words == verb.least_words) return fmt::format("{} arguments", verb.least_words);
  return fmt::format("between {} and {} arguments", verb.least_words, *verb.most_words);
}

}  // namespace

// --- commands ------------------------------------------------------------------------------------------------------

void IoSession::run_line(std::string_view line) {
  const std::vector<std::string> words = split_io_line(line);
  if (words.empty()) return;
  const auto arguments = std::span(words).subspan(1);
  const auto count = static_cast<int>(arguments.size());
  const IoVerb* const verb = find_io_verb(words.front());
  IoStatus status = IoStatus::kFailed;
  if (verb == nullptr) {
    console().note(fmt::format("command \"{}\" not found", words.front()));
  } else if (verb->needs_image && !image_.is_open()) {
    console().note("no file open, try 'help open'");
  } else if (count < verb->least_words || (verb->most_words && count > *verb->most_words)) {
    console().note(
        fmt::format("bad argument count {} to {}, expected {}", count, words.front(), expected_words(*verb)));
  } else if (verb->writes && !image_.writable()) {
    fail(Error(EACCES, "Block node is read-only"));
  } else {
    status = verb->run(*this, arguments);
  }
  failed_ |= status == IoStatus::kFailed;
}

void IoSession::run_script() {
  const std::string prompt = context_.program.name + "> ";
  InputLines lines;
  while (!quitting_) {
    out(prompt);
    console().flush_out();
    const auto line = lines.next();
    if (!line) break;
    run_line(*line);
  }
}

void IoSession::finish() {
  drain();
  if (!image_.is_open()) return;
  const auto closed = image_.close();
  if (!closed.ok()) fail(closed.error());
  failed_ |= !closed.ok();
}

IoStatus IoSession::complain(std::string_view line) {
  out(fmt::format("{}\n", line));
  return IoStatus::kFailed;
}

IoStatus IoSession::fail(const Error& error) {
  console().error(error);
  return IoStatus::kFailed;
}

// --- the image -----------------------------------------------------------------------------------------------------

Result<void> IoSession::open(IoTarget target, const IoOpenMode& mode) {
  COIMG_TRY(image_.open(context_, std::move(target), mode));
  listen();
  return {};
}

Result<void> IoSession::reopen(const IoImage::Changes& changes) {
  drain();
  auto reopened = image_.reopen(context_, changes);
  listen();
  return reopened;
}

Result<void> IoSession::close() {
  drain();
  return image_.close();
}

void IoSession::listen() {
  BlockDebugger* const injector = debugger();
  if (injector == nullptr) return;
  injector->set_listener([this](std::string_view line) {
    out(fmt::format("{}\n", line));
    changed_.restart_all();
  });
}

// --- requests ------------------------------------------------------------------------------------------------------

void IoSession::start(std::function<void()> request) {
  requests_.start([this, request = std::move(request)]() coroutine_fn {
    request();
    changed_.restart_all();
  });
  AioContext::current().co_schedule(Coroutine::self());
  Coroutine::yield();
}

void IoSession::run(std::function<void()> request) {
  bool done = false;
  start([&done, request = std::move(request)]() coroutine_fn {
    request();
    done = true;
  });
  if (!wait_until([&done] { return done; })) drain();
}

bool IoSession::wait_until(const std::function<bool()>& condition) {
  while (!condition()) {
    const BlockDebugger* const injector = debugger();
    const unsigned suspended = injector != nullptr ? injector->suspended_requests() : 0;
    if (suspended >= requests_.running()) return false;
    changed_.wait();
  }
  return true;
}

void IoSession::drain() {
  if (!wait_until([this] { return requests_.running() == 0; })) {
    failed_ = true;
    fail(Error(EDEADLK, "all requests are suspended, and no command is left to resume one: they are resumed now"));
    debugger()->release_all();
  }
  requests_.wait_all();
}

}  // namespace coimg
