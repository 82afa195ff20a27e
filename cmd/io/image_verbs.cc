// What concerns the image as a whole: length, info, map, alloc, truncate, flush.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "block/util/hex.h"
#include "block/util/math.h"
#include "cmd/image_report.h"
#include "cmd/io/arguments.h"
#include "cmd/io/report.h"
#include "cmd/io/verb.h"

namespace coimg {

namespace {

std::string size_text(uint64_t bytes) { return render_io_size(static_cast<double>(bytes)); }

IoStatus run_length(IoSession& session, std::span<const std::string>) coroutine_fn {
  session.out(size_text(session.image().node().length()) + "\n");
  return IoStatus::kDone;
}

IoStatus run_info(IoSession& session, std::span<const std::string>) coroutine_fn {
  BlockNode& node = session.image().node();
  const std::string name(node.type().name());
  session.out(fmt::format("format name: {}\n", name));
  if (node.type().kind() == DriverKind::kProtocol) session.out(fmt::format("format name: {}\n", name));
  const auto info = node.co_info();
  if (!info.ok()) return IoStatus::kFailed;
  session.out(fmt::format("cluster size: {}\nvm state offset: {}\n", size_text(info->cluster_size.value_or(0)),
                          size_text(info->vm_state_offset)));
  if (info->format_specific) session.out(render_format_specific(*info->format_specific));
  return IoStatus::kDone;
}

/// Whether the image itself decides the bytes from `offset` on, and how many, at most `bytes`.
struct AllocatedRange {
  bool allocated = false;
  uint64_t bytes = 0;
};
Result<AllocatedRange> find_allocated(BlockNode& node, uint64_t offset, uint64_t bytes) coroutine_fn {
  AllocatedRange range;
  while (range.bytes < bytes) {
    const BlockStatus status = COIMG_TRY(node.co_block_status(offset + range.bytes, bytes - range.bytes, false));
    if (status.bytes == 0 || (range.bytes != 0 && status.allocated != range.allocated)) break;
    range.allocated = status.allocated;
    range.bytes += status.bytes;
  }
  return range;
}

IoStatus run_map(IoSession& session, std::span<const std::string>) coroutine_fn {
  BlockNode& node = session.image().node();
  for (uint64_t offset = 0; offset < node.length();) {
    const auto range = find_allocated(node, offset, node.length() - offset);
    if (!range.ok()) {
      return session.fail(Error::from_errno(range.error().errnum(), "Failed to get allocation status"));
    }
    if (range->bytes == 0) return session.fail(Error(EIO, "Unexpected end of image"));
    session.out(fmt::format("{} (0x{:x}) bytes {} allocated at offset {} (0x{:x})\n", size_text(range->bytes),
                            range->bytes, range->allocated ? "   " : "not", size_text(offset), offset));
    offset += range->bytes;
  }
  return IoStatus::kDone;
}

IoStatus run_alloc(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const auto offset = parse_io_number(words[0]);
  if (!offset.ok()) return session.complain(offset.error());
  uint64_t bytes = kSectorSize;
  if (words.size() > 1) {
    const auto given = parse_io_number(words[1]);
    if (!given.ok()) return session.complain(given.error());
    bytes = *given;
  }
  BlockNode& node = session.image().node();
  bytes = *offset < node.length() ? std::min(bytes, node.length() - *offset) : 0;
  uint64_t allocated = 0;
  for (uint64_t done = 0; done < bytes;) {
    const auto range = find_allocated(node, *offset + done, bytes - done);
    if (!range.ok()) {
      return session.fail(Error::from_errno(range.error().errnum(), "Failed to get allocation status"));
    }
    if (range->bytes == 0) break;
    if (range->allocated) allocated += range->bytes;
    done += range->bytes;
  }
  session.out(fmt::format("{}/{} bytes allocated at offset {}\n", allocated, bytes, size_text(*offset)));
  return IoStatus::kDone;
}

IoStatus run_truncate(IoSession& session, std::span<const std::string> words) coroutine_fn {
  const IoArguments arguments = split_io_arguments("m:", words);
  auto preallocation = Preallocation::kOff;
  for (const auto& [letter, value] : arguments.options) {
    const auto found = find_preallocation(value);
    if (!found) return session.fail(Error(EINVAL, fmt::format("Invalid preallocation mode '{}'", value)));
    preallocation = *found;
  }
  if (!arguments.mistake.empty()) return io_usage(session, *find_io_verb("truncate"), arguments.mistake);
  if (arguments.operands.empty()) return io_usage(session, *find_io_verb("truncate"));
  const auto length = parse_io_number(arguments.operands[0]);
  if (!length.ok()) return session.complain(length.error());

  IoStatus status = IoStatus::kDone;
  session.run([&]() coroutine_fn {
    const auto truncated = session.image().node().co_truncate(*length, preallocation);
    if (!truncated.ok()) status = session.fail(truncated.error());
  });
  return status;
}

IoStatus run_flush(IoSession& session, std::span<const std::string>) coroutine_fn {
  IoStatus status = IoStatus::kDone;
  session.run([&]() coroutine_fn {
    if (!session.image().node().co_flush().ok()) status = IoStatus::kFailed;
  });
  return status;
}

IoStatus run_aio_flush(IoSession& session, std::span<const std::string>) coroutine_fn {
  session.drain();
  return IoStatus::kDone;
}

}  // namespace

std::vector<IoVerb> make_image_verbs() {
  return {
      {.name = "aio_flush", .run = run_aio_flush, .most_words = 0, .summary = "completes all outstanding aio requests"},
      {.name = "alloc",
       .alias = "a",
       .run = run_alloc,
       .least_words = 1,
       .most_words = 2,
       .syntax = "offset [count]",
       .summary = "checks if offset is allocated in the file"},
      {.name = "flush",
       .alias = "f",
       .run = run_flush,
       .most_words = 0,
       .summary = "flush all in-core file state to disk"},
      {.name = "info",
       .alias = "i",
       .run = run_info,
       .most_words = 0,
       .summary = "prints information about the current file"},
      {.name = "length",
       .alias = "l",
       .run = run_length,
       .most_words = 0,
       .summary = "gets the length of the current file"},
      {.name = "map", .run = run_map, .most_words = 0, .summary = "prints the allocated areas of a file"},
      {.name = "truncate",
       .alias = "t",
       .run = run_truncate,
       .least_words = 1,
       .most_words = 3,
       .writes = true,
       .syntax = "[-m prealloc_mode] off",
       .summary = "truncates the current file at the given offset"},
  };
}

}  // namespace coimg
