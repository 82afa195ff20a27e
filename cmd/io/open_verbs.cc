// open, close and reopen.
#include <fmt/format.h>

#include <cerrno>
#include <utility>

#include "cmd/io/arguments.h"
#include "cmd/io/verb.h"

namespace coimg {

namespace {

/// One option of "open".
Result<void> take_open_option(const IoArguments::Option& option, IoOpenMode& mode, Options& options) {
  switch (option.letter) {
    case 'C':
      mode.copy_on_read = true;
      return {};
    case 'd':
      return mode.set_discard(option.value);
    case 'i':
      return mode.set_aio(option.value);
    case 'k':
      mode.native_aio = true;
      return {};
    case 'n':
      mode.set_direct();
      return {};
    case 'o':
      options = COIMG_TRY(parse_key_value_options(option.value, ""));
      return {};
    case 'r':
      mode.writable = false;
      return {};
    case 's':
      mode.snapshot = true;
      return {};
    case 't':
      return mode.set_cache(option.value);
    default:
      mode.force_share = true;
      return {};
  }
}

IoStatus run_open(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const IoArguments arguments = split_io_arguments("Cd:i:kno:rst:U", words);
  IoOpenMode mode;
  IoTarget target;
  for (const auto& option : arguments.options) {
    const auto taken = take_open_option(option, mode, target.options);
    if (!taken.ok()) return session.fail(taken.error());
  }
  const bool names_nothing = arguments.operands.empty() && target.options.empty();
  if (!arguments.mistake.empty() || arguments.operands.size() > 1 || names_nothing) {
    return io_usage(session, *find_io_verb("open"), arguments.mistake);
  }
  if (session.image().is_open()) {
    return session.fail(Error(EBUSY, "file open already, try 'help close'"));
  }
  if (!arguments.operands.empty()) target.name = arguments.operands.front();
  const auto opened = session.open(std::move(target), mode);
  return opened.ok() ? IoStatus::kDone : session.fail(opened.error());
}

IoStatus run_close(IoSession& session, std::span<const std::string>) coroutine_fn {
  const auto closed = session.close();
  return closed.ok() ? IoStatus::kDone : session.fail(closed.error());
}

/// The changes that the options of "reopen" ask for. Errors: those that contradict each other.
Result<IoImage::Changes> take_changes(const IoArguments& arguments) {
  IoImage::Changes changes;
  bool options_given = false;
  for (const auto& [letter, value] : arguments.options) {
    switch (letter) {
      case 'c':
        changes.cache = COIMG_TRY(parse_cache_mode(value));
        break;
      case 'o':
        changes.options = COIMG_TRY(parse_key_value_options(value, ""));
        options_given = true;
        break;
      default:
        if (changes.writable.has_value()) return Error(EINVAL, "Only one -r/-w option may be given");
        changes.writable = letter == 'w';
        break;
    }
  }
  if (!options_given) return changes;
  if (changes.writable.has_value() && changes.options.has("read-only")) {
    return Error(EINVAL, "Cannot set both -r/-w and 'read-only'");
  }
  const bool sets_cache = changes.options.has("cache.direct") || changes.options.has("cache.no-flush");
  if (changes.cache.has_value() && sets_cache) return Error(EINVAL, "Cannot set both -c and the cache options");
  if (const auto read_only = COIMG_TRY(changes.options.take_bool("read-only"))) changes.writable = !*read_only;
  return changes;
}

IoStatus run_reopen(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const IoArguments arguments = split_io_arguments("c:o:rw", words);
  const auto changes = take_changes(arguments);
  if (!changes.ok()) return session.fail(changes.error());
  if (!arguments.mistake.empty() || !arguments.operands.empty()) {
    return io_usage(session, *find_io_verb("reopen"), arguments.mistake);
  }
  const auto reopened = session.reopen(*changes);
  return reopened.ok() ? IoStatus::kDone : session.fail(reopened.error());
}

}  // namespace

std::vector<IoVerb> make_open_verbs() {
  return {
      {.name = "close", .alias = "c", .run = run_close, .most_words = 0, .summary = "close the current open file"},
      {.name = "open",
       .alias = "o",
       .run = run_open,
       .least_words = 1,
       .needs_image = false,
       .syntax = "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
       .summary = "open the file specified by path",
       .help = " -C         keep in the image what is read from its backing file\n"
               " -d DISCARD unmap: discards are passed on to the host; ignore: they are not\n"
               " -i AIO     threads, native or io_uring\n"
               " -k         the same as -i native\n"
               " -n         around the page cache, the same as -t none\n"
               " -o OPTIONS of the drivers, as for --image-opts\n"
               " -r         not for writing\n"
               " -s         writes go to a temporary overlay\n"
               " -t CACHE   none, writeback, writethrough, directsync or unsafe\n"
               " -U         without locks\n"},
      {.name = "reopen",
       .run = run_reopen,
       .syntax = "[(-r|-w)] [-c cache] [-o options]",
       .summary = "reopens an image with new options",
       .help = " -c CACHE   another cache mode\n"
               " -o OPTIONS further options of the drivers\n"
               " -r         not for writing any more\n"
               " -w         for writing from now on\n"},
  };
}

}  // namespace coimg
