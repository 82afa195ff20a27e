// The records that recorder.cc writes: a header, the file's name, and the bytes of a write.
#pragma once

#include <cstdint>

namespace coimg::crash {

enum class RecordedOp : uint32_t { kWrite, kZero, kPunch, kReserve, kTruncate, kFlushBegin, kFlushEnd };

struct RecordHeader {
  RecordedOp op;
  uint32_t name_length = 0;
  uint64_t offset = 0;  ///< of a truncate the new length, of a flush its number
  uint64_t bytes = 0;
};

}  // namespace coimg::crash
