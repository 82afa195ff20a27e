#include "tests/crash/recording.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/crash/recorder.h"

namespace coimg::crash {

Outcome run_recorded(const std::string& directory, std::vector<std::string> command, const std::string& log) {
  command.insert(command.begin(), COIMG_PROGRAM);
  return run_program(directory, command,
                     {"LD_PRELOAD=" COIMG_CRASH_RECORDER, "ASAN_OPTIONS=verify_asan_link_order=0", "COIMG_AIO=threads",
                      "COIMG_CRASH_LOG=" + log, "COIMG_CRASH_DIRECTORY=" + directory});
}

std::map<std::string, WriteLog> read_recording(const std::string& path,
                                               const std::map<std::string, std::vector<std::byte>>& before) {
  struct OpenFlush {
    size_t complete;
    uint64_t time;
  };
  std::map<std::string, WriteLog> logs;
  std::map<uint64_t, OpenFlush> flushes;
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream) << path;
  uint64_t time = 0;
  for (RecordHeader header; stream.read(reinterpret_cast<char*>(&header), sizeof header);) {
    std::string name(header.name_length, 0);
    stream.read(name.data(), header.name_length);
    const auto initial = before.find(name);
    WriteLog& log =
        logs.try_emplace(name, initial == before.end() ? std::vector<std::byte>() : initial->second).first->second;
    LoggedIo io{.op = kOpWrite, .time = ++time, .offset = header.offset, .bytes = header.bytes};
    switch (header.op) {
      case RecordedOp::kWrite:
        io.data.resize(header.bytes);
        stream.read(reinterpret_cast<char*>(io.data.data()), static_cast<std::streamsize>(header.bytes));
        break;
      case RecordedOp::kZero:
        io.op = kOpZeroes;
        break;
      case RecordedOp::kPunch:
        io.op = kOpDiscard;
        break;
      case RecordedOp::kReserve:
        io = {.op = kOpWrite, .time = time, .offset = header.offset + header.bytes};  // extends, and writes nothing
        break;
      case RecordedOp::kTruncate:
        io.op = kOpTruncate;
        break;
      case RecordedOp::kFlushBegin:
        flushes[header.offset] = {log.entries().size(), time};
        continue;
      case RecordedOp::kFlushEnd: {
        const OpenFlush flush = flushes.at(header.offset);
        log.add_flush(flush.complete, flush.time);
        continue;
      }
    }
    EXPECT_TRUE(stream) << path << " ends in the middle of a record";
    log.add(std::move(io));
  }
  return logs;
}

}  // namespace coimg::crash
