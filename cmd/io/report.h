// How I/O commands show numbers, bytes and what a request took.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace coimg {

/// "64 KiB", "1.500 KiB", "5 bytes": three digits behind the point unless they are zeros.
std::string render_io_size(double bytes);

/// One finished request.
struct IoReport {
  std::string_view verb;  ///< "read", "wrote", "discard"
  uint64_t offset = 0;
  uint64_t bytes = 0;
  double seconds = 0;
};

/// Two lines for people.
std::string render_io_report(const IoReport& report);
/// -C: "BYTES,1,TIME,BYTES_PER_SECOND,REQUESTS_PER_SECOND"
std::string render_machine_report(const IoReport& report);

/// -v: sixteen bytes a line, with their offset and what of them are letters and digits.
std::string render_dump(std::span<const std::byte> bytes, uint64_t offset);

}  // namespace coimg
