// Which library for what: ISA-L writes deflate, as fast as no other and with a window that can be held to the 4 KiB
// that every reader of the format copes with; its level 3 is eight times as fast as zlib's default, for output that is
// larger by one to eight per cent. Its levels 1 and 2 are faster, but did not always give the same bytes for the same
// data (version 2.30, AVX-512), so our levels 1 to 3 are all this one. Those above are zlib's, for who wants it
// smaller. libdeflate reads it, and zlib has the last word on streams that libdeflate refuses, since it decodes as QEMU
// does: longer streams are cut, what lies behind is ignored. zstd has one library.
//
// The libraries' working memory is kept per worker thread. Nothing here yields, so that is safe.
#include "formats/qcow2/compressed.h"

#include <isa-l/igzip_lib.h>
#include <libdeflate.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <memory>

#include "block/util/math.h"
#include "formats/qcow2/incompressible.h"

namespace coimg::qcow2 {

namespace {

constexpr uint16_t kDeflateWindowBits = 12;
constexpr unsigned kIsalLevel = 3, kLastZlibLevel = 9;
constexpr int kDefaultZstdLevel = ZSTD_CLEVEL_DEFAULT;
// zstd's default level with tables that stay in the first-level cache, where a cluster has the usual size: a fifth
// faster for programs and libraries, nothing gained and little lost for source text. Shorter matches make up for the
// smaller tables; the output is larger by 1 % at most, mostly by less than half of that.
constexpr size_t kTunedBytes = 64 * kKiB;
constexpr int kTunedTableLog = 12, kTunedMinMatch = 4, kAsLevel = 0;
constexpr int kZlibMemoryLevel = 9;  // what QEMU takes, so that level 6 gives its bytes
constexpr int kLargestWindowBits = 15;

template <auto kFree>
struct FreeWith {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};

Error undecodable(std::string_view why) { return {EIO, "compressed cluster cannot be decoded: " + std::string(why)}; }

std::optional<size_t> deflate_fast(std::span<const std::byte> cluster, std::span<std::byte> stream) {
  static thread_local const auto level_buffer = std::make_unique<uint8_t[]>(ISAL_DEF_LVL3_DEFAULT);
  isal_zstream state;
  isal_deflate_init(&state);
  state.level = kIsalLevel;
  state.level_buf = level_buffer.get();
  state.level_buf_size = ISAL_DEF_LVL3_DEFAULT;
  state.hist_bits = kDeflateWindowBits;
  state.end_of_stream = 1;
  state.flush = NO_FLUSH;
  state.next_in = reinterpret_cast<uint8_t*>(const_cast<std::byte*>(cluster.data()));
  state.avail_in = static_cast<uint32_t>(cluster.size());
  state.next_out = reinterpret_cast<uint8_t*>(stream.data());
  state.avail_out = static_cast<uint32_t>(stream.size());
  const int status = isal_deflate(&state);
  // The output is full before the end: the data do not shrink.
  if (status != COMP_OK || state.internal_state.state != ZSTATE_END) return std::nullopt;
  return state.total_out;
}

Result<std::optional<size_t>> deflate_small(unsigned level, std::span<const std::byte> cluster,
                                            std::span<std::byte> stream) {
  z_stream state{};
  if (deflateInit2(&state, static_cast<int>(level), Z_DEFLATED, -int{kDeflateWindowBits}, kZlibMemoryLevel,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    return Error::from_errno(ENOMEM);
  }
  state.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(cluster.data()));
  state.avail_in = static_cast<uInt>(cluster.size());
  state.next_out = reinterpret_cast<Bytef*>(stream.data());
  state.avail_out = static_cast<uInt>(stream.size());
  const bool complete = deflate(&state, Z_FINISH) == Z_STREAM_END;
  const size_t bytes = state.total_out;
  deflateEnd(&state);
  return complete ? std::optional(bytes) : std::nullopt;
}

Result<std::optional<size_t>> deflate_cluster(unsigned level, std::span<const std::byte> cluster,
                                              std::span<std::byte> stream) {
  if (level <= kIsalLevel) return is_incompressible(cluster) ? std::nullopt : deflate_fast(cluster, stream);
  return deflate_small(std::min(level, kLastZlibLevel), cluster, stream);
}

Result<std::optional<size_t>> zstd_compress_cluster(unsigned level, std::span<const std::byte> cluster,
                                                    std::span<std::byte> stream) {
  static thread_local const std::unique_ptr<ZSTD_CCtx, FreeWith<ZSTD_freeCCtx>> context(ZSTD_createCCtx());
  if (!context) return Error::from_errno(ENOMEM);
  const bool tuned = level == 0 && cluster.size() == kTunedBytes;
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel,
                         level == 0 ? kDefaultZstdLevel : static_cast<int>(level));
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_hashLog, tuned ? kTunedTableLog : kAsLevel);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_chainLog, tuned ? kTunedTableLog : kAsLevel);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_minMatch, tuned ? kTunedMinMatch : kAsLevel);
  const size_t bytes = ZSTD_compress2(context.get(), stream.data(), stream.size(), cluster.data(), cluster.size());
  if (!ZSTD_isError(bytes)) return std::optional(bytes);
  if (ZSTD_getErrorCode(bytes) == ZSTD_error_dstSize_tooSmall) return std::optional<size_t>();
  return Error(EIO, std::string("zstd: ") + ZSTD_getErrorName(bytes));
}

/// One call over the whole stream, as QEMU does: success once the output is full, whatever follows.
Result<void> inflate_with_zlib(std::span<const std::byte> stream, std::span<std::byte> cluster) {
  z_stream state{};
  if (inflateInit2(&state, -kLargestWindowBits) != Z_OK) return Error::from_errno(ENOMEM);
  state.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(stream.data()));
  state.avail_in = static_cast<uInt>(stream.size());
  state.next_out = reinterpret_cast<Bytef*>(cluster.data());
  state.avail_out = static_cast<uInt>(cluster.size());
  inflate(&state, Z_FINISH);
  const bool full = state.avail_out == 0;
  inflateEnd(&state);
  if (!full) return undecodable("the deflate stream is damaged or too short");
  return {};
}

Result<void> inflate_cluster(std::span<const std::byte> stream, std::span<std::byte> cluster) {
  static thread_local const std::unique_ptr<libdeflate_decompressor, FreeWith<libdeflate_free_decompressor>> decoder(
      libdeflate_alloc_decompressor());
  if (decoder && libdeflate_deflate_decompress(decoder.get(), stream.data(), stream.size(), cluster.data(),
                                               cluster.size(), nullptr) == LIBDEFLATE_SUCCESS) {
    return {};
  }
  return inflate_with_zlib(stream, cluster);
}

/// Several frames may follow each other, skippable ones too; the last one has to end where the cluster does.
Result<void> zstd_decompress_cluster(std::span<const std::byte> stream, std::span<std::byte> cluster) {
  static thread_local const std::unique_ptr<ZSTD_DCtx, FreeWith<ZSTD_freeDCtx>> context(ZSTD_createDCtx());
  if (!context) return Error::from_errno(ENOMEM);
  // One frame that is the whole cluster is what everybody writes. Streaming would keep a window beside the output.
  const size_t frame = ZSTD_findFrameCompressedSize(stream.data(), stream.size());
  if (!ZSTD_isError(frame) &&
      ZSTD_decompressDCtx(context.get(), cluster.data(), cluster.size(), stream.data(), frame) == cluster.size()) {
    return {};
  }
  ZSTD_DCtx_reset(context.get(), ZSTD_reset_session_only);
  ZSTD_inBuffer input{stream.data(), stream.size(), 0};
  ZSTD_outBuffer output{cluster.data(), cluster.size(), 0};
  size_t status = 0;
  while (output.pos < output.size) {
    const size_t consumed = input.pos, produced = output.pos;
    status = ZSTD_decompressStream(context.get(), &output, &input);
    if (ZSTD_isError(status)) return undecodable(std::string("zstd: ") + ZSTD_getErrorName(status));
    if (input.pos == consumed && output.pos == produced) return undecodable("the zstd stream is too short");
  }
  if (status != 0) return undecodable("the zstd frame is longer than the cluster");
  return {};
}

}  // namespace

Result<std::optional<size_t>> compress_cluster(CompressionType type, unsigned level, std::span<const std::byte> cluster,
                                               std::span<std::byte> stream) {
  // One byte less than the cluster: what does not shrink is stored plain.
  const std::span<std::byte> limited = stream.first(std::min(stream.size(), cluster.size() - 1));
  if (type == CompressionType::kZstd) return zstd_compress_cluster(level, cluster, limited);
  return deflate_cluster(level, cluster, limited);
}

Result<void> decompress_cluster(CompressionType type, std::span<const std::byte> stream, std::span<std::byte> cluster) {
  if (type == CompressionType::kZstd) return zstd_decompress_cluster(stream, cluster);
  return inflate_cluster(stream, cluster);
}

}  // namespace coimg::qcow2
