// read, readv and aio_read.
#include <fmt/format.h>

#include <cstring>
#include <memory>
#include <utility>

#include "cmd/io/arguments.h"
#include "cmd/io/request.h"
#include "cmd/io/verb.h"

namespace coimg {

namespace {

/// What buffers hold before something is read into them, so that what was not read is seen.
constexpr std::byte kUnread{0xab};

struct ReadOptions {
  IoReportOptions report;
  bool dump = false;
  bool invalid = false;   ///< -i: only pretend
  bool vm_state = false;  ///< -b
  std::optional<std::byte> pattern;
  std::optional<uint64_t> pattern_start, pattern_bytes;
};

/// Takes the options of all three commands. Errors: the line to print.
Result<ReadOptions> take_read_options(const IoArguments& arguments) {
  ReadOptions options;
  for (const auto& [letter, value] : arguments.options) {
    switch (letter) {
      case 'b':
        options.vm_state = true;
        break;
      case 'C':
        options.report.machine_readable = true;
        break;
      case 'i':
        options.invalid = true;
        break;
      case 'l':
        options.pattern_bytes = COIMG_TRY(parse_io_number(value));
        break;
      case 'P':
        options.pattern = COIMG_TRY(parse_io_pattern(value));
        break;
      case 'q':
        options.report.quiet = true;
        break;
      case 's':
        options.pattern_start = COIMG_TRY(parse_io_number(value));
        break;
      case 'v':
        options.dump = true;
        break;
      default:  // -p is accepted and means nothing
        break;
    }
  }
  return options;
}

std::optional<IoPattern> pattern_of(const ReadOptions& options, uint64_t bytes) {
  if (!options.pattern) return std::nullopt;
  const uint64_t start = options.pattern_start.value_or(0);
  return IoPattern{.value = *options.pattern, .start = start, .bytes = options.pattern_bytes.value_or(bytes - start)};
}

/// Reads, verifies and reports. `failure` names the command in the message of a failed read.
IoStatus read_and_report(IoSession& session, const ReadOptions& options, uint64_t offset, IoMemory& memory,
                         std::string_view failure) coroutine_fn {
  const IoStopwatch stopwatch;
  const Result<void> read = options.vm_state ? session.image().node().co_preadv_vm_state(offset, memory.vector())
                                             : read_from_image(session, offset, memory.vector());
  if (!read.ok()) return session.complain(fmt::format("{} failed: {}", failure, std::strerror(read.error().errnum())));
  IoStatus status = IoStatus::kDone;
  if (const auto pattern = pattern_of(options, memory.size())) {
    status = verify_pattern(session, memory.bytes(), *pattern, offset);
  }
  if (options.report.quiet) return status;
  if (options.dump) session.out(render_dump(memory.bytes(), offset));
  stopwatch.report(session, options.report, "read", offset, memory.size());
  return status;
}

/// Where the operands of "read" lead to. Errors: the line to print; ECANCELED: the usage is shown instead.
struct ReadRange {
  uint64_t offset = 0, bytes = 0;
};
Result<ReadRange> take_range(const IoArguments& arguments, const ReadOptions& options) {
  const std::string& length = arguments.operands[1];
  ReadRange range;
  range.offset = COIMG_TRY(parse_io_number(arguments.operands[0]));
  range.bytes = COIMG_TRY(parse_io_number(length));
  if (range.bytes > kMaxIoBytes) {
    return Error(EINVAL, fmt::format("length cannot exceed {}, given {}", kMaxIoBytes, length));
  }
  const bool has_part = options.pattern_start.has_value() || options.pattern_bytes.has_value();
  if (has_part && !options.pattern.has_value()) return Error::from_errno(ECANCELED);
  const uint64_t start = options.pattern_start.value_or(0);
  if (start > range.bytes || options.pattern_bytes.value_or(0) > range.bytes - start) {
    return Error(EINVAL, "pattern verification range exceeds end of read data");
  }
  if (options.vm_state) {
    COIMG_TRY(check_sector_aligned(range.offset, "offset"));
    COIMG_TRY(check_sector_aligned(range.bytes, "count"));
  }
  return range;
}

IoStatus read_failed(IoSession& session, std::string_view failure, int errnum) {
  return session.complain(fmt::format("{} failed: {}", failure, std::strerror(errnum)));
}

IoStatus run_read(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const IoVerb& verb = *find_io_verb("read");
  const IoArguments arguments = split_io_arguments("bCl:pP:qs:v", words);
  const auto options = take_read_options(arguments);
  if (!options.ok()) return session.complain(options.error());
  if (!arguments.mistake.empty() || arguments.operands.size() != 2) return io_usage(session, verb, arguments.mistake);
  const auto range = take_range(arguments, *options);
  if (!range.ok())
    return range.error().errnum() == ECANCELED ? io_usage(session, verb) : session.complain(range.error());
  if (!options->vm_state && !session.image().check_range(range->offset, range->bytes).ok()) {  // before memory is had
    return read_failed(session, "read", EIO);
  }

  IoMemory memory(session, std::span(&range->bytes, 1), kUnread);
  IoStatus status = IoStatus::kDone;
  session.run([&]() coroutine_fn { status = read_and_report(session, *options, range->offset, memory, "read"); });
  return status;
}

/// The common part of readv and aio_read: a request in pieces.
struct VectorRead {
  ReadOptions options;
  uint64_t offset = 0;
  std::vector<uint64_t> lengths;
};
Result<VectorRead> take_vector_read(const IoArguments& arguments, ReadOptions options) {
  VectorRead read;
  read.options = options;
  read.offset = COIMG_TRY(parse_io_number(arguments.operands[0]));
  read.lengths = COIMG_TRY(parse_io_lengths(std::span(arguments.operands).subspan(1)));
  return read;
}

IoStatus run_readv(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const IoArguments arguments = split_io_arguments("CP:qv", words);
  const auto options = take_read_options(arguments);
  if (!options.ok()) return session.complain(options.error());
  if (!arguments.mistake.empty() || arguments.operands.size() < 2) {
    return io_usage(session, *find_io_verb("readv"), arguments.mistake);
  }
  const auto read = take_vector_read(arguments, *options);
  if (!read.ok()) return session.complain(read.error());
  IoMemory memory(session, read->lengths, kUnread);
  IoStatus status = IoStatus::kDone;
  session.run([&]() coroutine_fn { status = read_and_report(session, *options, read->offset, memory, "readv"); });
  return status;
}

IoStatus run_aio_read(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const IoArguments arguments = split_io_arguments("CP:iqv", words);
  const auto options = take_read_options(arguments);
  if (!options.ok()) return session.complain(options.error());
  if (options->invalid) {
    session.out("injecting invalid read request\n");
    return IoStatus::kDone;
  }
  if (!arguments.mistake.empty() || arguments.operands.size() < 2) {
    return io_usage(session, *find_io_verb("aio_read"), arguments.mistake);
  }
  const auto read = take_vector_read(arguments, *options);
  if (!read.ok()) return session.complain(read.error());
  const auto memory = std::make_shared<IoMemory>(session, read->lengths, kUnread);
  session.start([&session, read = *read, memory]() coroutine_fn {
    static_cast<void>(read_and_report(session, read.options, read.offset, *memory, "readv"));
  });
  return IoStatus::kDone;
}

}  // namespace

std::vector<IoVerb> make_read_verbs() {
  return {
      {.name = "read",
       .alias = "r",
       .run = run_read,
       .least_words = 2,
       .syntax = "[-abCqv] [-P pattern [-s off] [-l len]] off len",
       .summary = "reads a number of bytes at a specified offset",
       .help = " -b      from the state of a machine that the image holds, not from its disk\n"
               " -C      report in one line for programs\n"
               " -l LEN  how many bytes -P looks at\n"
               " -p      nothing; it used to mean something\n"
               " -P BYTE every byte read has to have this value\n"
               " -q      no report\n"
               " -s OFF  where in what was read -P begins\n"
               " -v      show what was read\n"},
      {.name = "readv",
       .run = run_readv,
       .least_words = 2,
       .syntax = "[-Cqv] [-P pattern] off len [len..]",
       .summary = "reads a number of bytes at a specified offset",
       .help = " Each length is a piece of memory of its own; they are read by one request.\n"
               " -C      report in one line for programs\n"
               " -P BYTE every byte read has to have this value\n"
               " -q      no report\n"
               " -v      show what was read\n"},
      {.name = "aio_read",
       .run = run_aio_read,
       .least_words = 2,
       .syntax = "[-Ciqv] [-P pattern] off len [len..]",
       .summary = "asynchronously reads a number of bytes",
       .help = " As readv, but further commands run meanwhile. What becomes of the request is printed\n"
               " when it ends and does not count as a failure; aio_flush waits for it.\n"
               " -C      report in one line for programs\n"
               " -i      only say that an invalid request was made\n"
               " -P BYTE every byte read has to have this value\n"
               " -q      no report\n"
               " -v      show what was read\n"},
  };
}

}  // namespace coimg
