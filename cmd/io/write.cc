// write, writev, aio_write and discard.
#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <utility>

#include "cmd/io/arguments.h"
#include "cmd/io/request.h"
#include "cmd/io/verb.h"

namespace coimg {

namespace {

constexpr std::byte kDefaultPattern{0xcd};

struct WriteCommandOptions {
  IoReportOptions report;
  bool vm_state = false, compressed = false, durable = false;
  bool zeroes = false, no_fallback = false, may_unmap = false;
  bool invalid = false;  ///< -i: only pretend
  std::optional<std::byte> pattern;
  std::optional<std::string> pattern_file;
};

/// Takes the options of all commands here. Errors: the line to print.
Result<WriteCommandOptions> take_write_options(const IoArguments& arguments) {
  WriteCommandOptions options;
  for (const auto& [letter, value] : arguments.options) {
    switch (letter) {
      case 'b':
        options.vm_state = true;
        break;
      case 'c':
        options.compressed = true;
        break;
      case 'C':
        options.report.machine_readable = true;
        break;
      case 'f':
        options.durable = true;
        break;
      case 'i':
        options.invalid = true;
        break;
      case 'n':
        options.no_fallback = true;
        break;
      case 'P':
        options.pattern = COIMG_TRY(parse_io_pattern(value));
        break;
      case 'q':
        options.report.quiet = true;
        break;
      case 's':
        options.pattern_file = value;
        break;
      case 'u':
        options.may_unmap = true;
        break;
      case 'z':
        options.zeroes = true;
        break;
      default:  // -p is accepted and means nothing
        break;
    }
  }
  return options;
}

/// What options of "write" cannot do together.
Result<void> check_write_options(const WriteCommandOptions& options) {
  const auto refuse = [](const char* line) { return Error(EINVAL, line); };
  if (options.vm_state && options.zeroes) return refuse("-b and -z cannot be specified at the same time");
  if (options.durable && (options.vm_state || options.compressed)) {
    return refuse("-f and -b or -c cannot be specified at the same time");
  }
  if (options.no_fallback && !options.zeroes) return refuse("-n requires -z to be specified");
  if (options.may_unmap && !options.zeroes) return refuse("-u requires -z to be specified");
  if (options.zeroes + options.pattern.has_value() + options.pattern_file.has_value() > 1) {
    return refuse("Only one of -z, -P, and -s can be specified at the same time");
  }
  return {};
}

struct WriteRange {
  uint64_t offset = 0, bytes = 0;
};

Result<WriteRange> take_range(const IoArguments& arguments, const WriteCommandOptions& options) {
  const std::string& length = arguments.operands[1];
  WriteRange range;
  range.offset = COIMG_TRY(parse_io_number(arguments.operands[0]));
  range.bytes = COIMG_TRY(parse_io_number(length));
  if (range.bytes > kMaxIoBytes && !options.no_fallback) {
    return Error(EINVAL, fmt::format("length cannot exceed {} without -n, given {}", kMaxIoBytes, length));
  }
  if (options.vm_state || options.compressed) {
    COIMG_TRY(check_sector_aligned(range.offset, "offset"));
    COIMG_TRY(check_sector_aligned(range.bytes, "count"));
  }
  return range;
}

/// At most `limit` bytes of the file behind -s. Errors: the line for stderr.
Result<std::string> read_pattern_file(const std::string& path, uint64_t limit) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error(errno, fmt::format("{}: {}", path, std::strerror(errno)));
  std::string bytes(limit, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(limit));
  bytes.resize(static_cast<size_t>(file.gcount()));
  if (bytes.empty()) return Error(EINVAL, fmt::format("{}: file is empty", path));
  return bytes;
}

IoStatus request_failed(IoSession& session, std::string_view failure, int errnum) {
  return session.complain(fmt::format("{} failed: {}", failure, std::strerror(errnum)));
}

/// Hands one request of any kind to the image. `memory` is not looked at for zeroes.
Result<void> write_to_image(IoSession& session, const WriteCommandOptions& options, uint64_t offset, uint64_t bytes,
                            const IoVector& memory) coroutine_fn {
  BlockNode& node = session.image().node();
  if (options.vm_state) return node.co_pwritev_vm_state(offset, memory);
  COIMG_TRY(session.image().check_range(offset, bytes));
  if (options.zeroes) {
    COIMG_TRY(node.co_pwrite_zeroes(
        offset, bytes, {.may_unmap = options.may_unmap, .no_fallback = options.no_fallback, .placement = nullptr}));
    return options.durable ? node.co_flush() : Result<void>();
  }
  if (options.compressed) return node.co_pwrite_compressed(offset, memory);
  return node.co_pwritev(offset, memory, {.force_unit_access = options.durable, .placement = nullptr});
}

/// Writes and reports. `failure` names the command in the message of a failed write.
IoStatus write_and_report(IoSession& session, const WriteCommandOptions& options, uint64_t offset, uint64_t bytes,
                          const IoVector& memory, std::string_view failure) coroutine_fn {
  const IoStopwatch stopwatch;
  const Result<void> written = write_to_image(session, options, offset, bytes, memory);
  if (!written.ok()) return request_failed(session, failure, written.error().errnum());
  stopwatch.report(session, options.report, "wrote", offset, bytes);
  return IoStatus::kDone;
}

IoStatus run_write(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const IoArguments arguments = split_io_arguments("bcCfnpP:qs:uz", words);
  const auto options = take_write_options(arguments);
  if (!options.ok()) return session.complain(options.error());
  if (!arguments.mistake.empty() || arguments.operands.size() != 2) {
    return io_usage(session, *find_io_verb("write"), arguments.mistake);
  }
  const auto allowed = check_write_options(*options);
  if (!allowed.ok()) return session.complain(allowed.error());
  const auto range = take_range(arguments, *options);
  if (!range.ok()) return session.complain(range.error());
  if (!options->vm_state && !session.image().check_range(range->offset, range->bytes).ok()) {  // before memory is had
    return request_failed(session, "write", EIO);
  }

  const uint64_t stored = options->zeroes ? 0 : range->bytes;
  IoMemory memory(session, std::span(&stored, 1), options->pattern.value_or(kDefaultPattern));
  if (options->pattern_file) {
    const auto pattern = read_pattern_file(*options->pattern_file, std::max<uint64_t>(range->bytes, 1));
    if (!pattern.ok()) {
      session.console().note(pattern.error().message());
      return IoStatus::kFailed;
    }
    memory.fill_with(std::as_bytes(std::span(*pattern)));
  }
  IoStatus status = IoStatus::kDone;
  session.run([&]() coroutine_fn {
    status = write_and_report(session, *options, range->offset, range->bytes, memory.vector(), "write");
  });
  return status;
}

IoStatus run_writev(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const IoArguments arguments = split_io_arguments("CfP:q", words);
  const auto options = take_write_options(arguments);
  if (!options.ok()) return session.complain(options.error());
  if (!arguments.mistake.empty() || arguments.operands.size() < 2) {
    return io_usage(session, *find_io_verb("writev"), arguments.mistake);
  }
  const auto offset = parse_io_number(arguments.operands[0]);
  if (!offset.ok()) return session.complain(offset.error());
  const auto lengths = parse_io_lengths(std::span(arguments.operands).subspan(1));
  if (!lengths.ok()) return session.complain(lengths.error());
  const IoMemory memory(session, *lengths, options->pattern.value_or(kDefaultPattern));
  IoStatus status = IoStatus::kDone;
  session.run([&]() coroutine_fn {
    status = write_and_report(session, *options, *offset, memory.size(), memory.vector(), "writev");
  });
  return status;
}

/// What aio_write is to do. With -z there is one length, without memory.
struct AioWrite {
  uint64_t offset = 0, bytes = 0;
  std::vector<uint64_t> lengths;
};
Result<AioWrite> take_aio_write(const IoArguments& arguments, const WriteCommandOptions& options) {
  if (options.may_unmap && !options.zeroes) return Error(EINVAL, "-u requires -z to be specified");
  if (options.zeroes && arguments.operands.size() != 2) {
    return Error(EINVAL, "-z supports only a single length parameter");
  }
  AioWrite write;
  write.offset = COIMG_TRY(parse_io_number(arguments.operands[0]));
  if (options.zeroes) {
    write.bytes = COIMG_TRY(parse_io_number(arguments.operands[1]));
    return write;
  }
  write.lengths = COIMG_TRY(parse_io_lengths(std::span(arguments.operands).subspan(1)));
  for (const uint64_t length : write.lengths) write.bytes += length;
  return write;
}

IoStatus run_aio_write(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const IoArguments arguments = split_io_arguments("CfiP:quz", words);
  const auto options = take_write_options(arguments);
  if (!options.ok()) return session.complain(options.error());
  if (options->invalid) {
    session.out("injecting invalid write request\n");
    return IoStatus::kDone;
  }
  if (!arguments.mistake.empty() || arguments.operands.size() < 2) {
    return io_usage(session, *find_io_verb("aio_write"), arguments.mistake);
  }
  const auto write = take_aio_write(arguments, *options);
  if (!write.ok()) return session.complain(write.error());
  const auto memory = std::make_shared<IoMemory>(session, write->lengths, options->pattern.value_or(kDefaultPattern));
  session.start([&session, options = *options, write = *write, memory]() coroutine_fn {
    static_cast<void>(write_and_report(session, options, write.offset, write.bytes, memory->vector(), "aio_write"));
  });
  return IoStatus::kDone;
}

IoStatus run_discard(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const IoArguments arguments = split_io_arguments("Cq", words);
  const auto options = take_write_options(arguments);
  if (!options.ok()) return session.complain(options.error());
  if (!arguments.mistake.empty() || arguments.operands.size() != 2) {
    return io_usage(session, *find_io_verb("discard"), arguments.mistake);
  }
  const auto offset = parse_io_number(arguments.operands[0]);
  if (!offset.ok()) return session.complain(offset.error());
  const auto bytes = parse_io_number(arguments.operands[1]);
  if (!bytes.ok()) return session.complain(bytes.error());
  if (*bytes > kMaxIoBytes) {
    return session.complain(fmt::format("length cannot exceed {}, given {}", kMaxIoBytes, arguments.operands[1]));
  }

  IoStatus status = IoStatus::kDone;
  session.run([&]() coroutine_fn {
    const IoStopwatch stopwatch;
    Result<void> discarded = session.image().check_range(*offset, *bytes);
    if (discarded.ok()) discarded = session.image().node().co_pdiscard(*offset, *bytes);
    if (discarded.ok()) {
      stopwatch.report(session, options->report, "discard", *offset, *bytes);
    } else {
      status = request_failed(session, "discard", discarded.error().errnum());
    }
  });
  return status;
}

}  // namespace

std::vector<IoVerb> make_write_verbs() {
  return {
      {.name = "write",
       .alias = "w",
       .run = run_write,
       .least_words = 2,
       .writes = true,
       .syntax = "[-bcCfnquz] [-P pattern | -s source_file] off len",
       .summary = "writes a number of bytes at a specified offset",
       .help = " Writes bytes of the value 0xcd, unless told otherwise.\n"
               " -b      into the state of a machine that the image holds, not into its disk\n"
               " -c      compressed\n"
               " -C      report in one line for programs\n"
               " -f      durable when the command ends\n"
               " -n      with -z: fail rather than write zeros out\n"
               " -p      nothing; it used to mean something\n"
               " -P BYTE write this value\n"
               " -q      no report\n"
               " -s FILE write what the file holds, over and over\n"
               " -u      with -z: space may be given back\n"
               " -z      write zeros, as efficiently as the image can\n"},
      {.name = "writev",
       .run = run_writev,
       .least_words = 2,
       .writes = true,
       .syntax = "[-Cfq] [-P pattern] off len [len..]",
       .summary = "writes a number of bytes at a specified offset",
       .help = " Each length is a piece of memory of its own; they are written by one request.\n"
               " -C      report in one line for programs\n"
               " -f      durable when the command ends\n"
               " -P BYTE write this value instead of 0xcd\n"
               " -q      no report\n"},
      {.name = "aio_write",
       .run = run_aio_write,
       .least_words = 2,
       .writes = true,
       .syntax = "[-Cfiquz] [-P pattern] off len [len..]",
       .summary = "asynchronously writes a number of bytes",
       .help = " As writev, but further commands run meanwhile. What becomes of the request is printed\n"
               " when it ends and does not count as a failure; aio_flush waits for it.\n"
               " -C      report in one line for programs\n"
               " -f      durable when the request ends\n"
               " -i      only say that an invalid request was made\n"
               " -P BYTE write this value instead of 0xcd\n"
               " -q      no report\n"
               " -u      with -z: space may be given back\n"
               " -z      write zeros, as efficiently as the image can\n"},
      {.name = "discard",
       .alias = "d",
       .run = run_discard,
       .least_words = 2,
       .writes = true,
       .syntax = "[-Cq] off len",
       .summary = "discards a number of bytes at a specified offset",
       .help = " Nobody needs the bytes any more; afterwards they read as they were or as zeros.\n"
               " -C      report in one line for programs\n"
               " -q      no report\n"},
  };
}

}  // namespace coimg
