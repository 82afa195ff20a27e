// The plan of a copy: the sources as one sequence, cut into chunks that workers can do side by side.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "block/node.h"
#include "block/util/result.h"
#include "coroutine/annotations.h"

namespace coimg {

/// What has to be done for a range of the target.
enum class CopyKind {
  kLeave,  ///< nothing: the target's backing file has it
  kZero,   ///< the source says that it reads as zeros
  kData,   ///< to be read
};

struct CopyRun {
  CopyKind kind = CopyKind::kData;
  uint64_t offset = 0;  ///< in the target
  uint64_t bytes = 0;
};

/// A piece of work: neighbouring runs. Starts at a multiple of the plan's granularity, and ends at one or at the end.
struct CopyChunk {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  std::vector<CopyRun> runs;

  [[nodiscard]] bool only(CopyKind kind) const { return runs.size() == 1 && runs[0].kind == kind; }
};

/// Adds a run at the end of a chunk; to its last run, where that is of the same kind.
void append_run(CopyChunk& chunk, const CopyRun& run);

/// Several images read as if they stood behind each other.
class SourceSequence {
 public:
  /// Begins `offset` bytes behind the start of the first one; at most `bytes` long.
  explicit SourceSequence(const std::vector<BlockNode*>& nodes, uint64_t offset = 0, uint64_t bytes = UINT64_MAX);

  [[nodiscard]] uint64_t length() const { return length_; }

  /// The run that starts at `offset`, at most `bytes` long. With `top_layer_only`, what the top layers do not allocate
  /// is to be left alone; down to `above` if that is given. Errors: those of block status.
  Result<CopyRun> run_at(uint64_t offset, uint64_t bytes, bool top_layer_only, const BlockNode* above = nullptr)
      coroutine_fn;

  /// Reads memory.size() bytes, across the borders of the images.
  Result<void> read(uint64_t offset, const IoVector& memory) coroutine_fn;
  /// Reads a run of data, and fills one of another kind with zeros. Errors name the offset.
  Result<void> read_run(const CopyRun& run, const IoVector& memory) coroutine_fn;
  /// The same for all runs of the chunk.
  Result<void> read_chunk(const CopyChunk& chunk, const IoVector& memory) coroutine_fn;

 private:
  struct Member {
    BlockNode* node;
    uint64_t start;  ///< in the sequence
    uint64_t first;  ///< byte of the image that stands there
    uint64_t bytes;
  };
  [[nodiscard]] const Member& member_at(uint64_t offset) const;

  std::vector<Member> members_;
  uint64_t length_ = 0;
};

/// Walks the sources once, from front to back.
class CopyPlan {
 public:
  struct Settings {
    uint64_t granularity = 4096;    ///< chunks begin at its multiples, so that no two touch one cluster; power of two
    uint64_t chunk_bytes = 0;       ///< of data in one chunk; multiple of the granularity
    uint64_t idle_chunk_bytes = 0;  ///< longest chunk that needs no reading; multiple of the granularity
    bool top_layer_only = false;
    const BlockNode* above = nullptr;  ///< see SourceSequence::run_at()
    bool whole_units = false;          ///< a unit with any data is data as a whole (compression)
  };

  CopyPlan(SourceSequence& sources, Settings settings) : sources_(sources), settings_(settings) {}

  /// The next chunk, or nothing at the end. A long run that needs no reading is a chunk of its own.
  Result<std::optional<CopyChunk>> next() coroutine_fn;

  /// Where the next chunk starts.
  [[nodiscard]] uint64_t position() const { return position_; }

 private:
  void merge_data_units(CopyChunk& chunk) const;

  SourceSequence& sources_;
  const Settings settings_;
  uint64_t position_ = 0;
};

}  // namespace coimg
