#include "cmd/io/report.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

namespace coimg {

namespace {

enum class TimeStyle { kShort, kFull };

/// "00.01 sec", and from a minute on, or in full, "0:01:01.57".
std::string render_time(double seconds, TimeStyle style) {
  constexpr uint64_t kMinute = 60, kHour = 60 * kMinute;
  const auto whole = static_cast<uint64_t>(seconds);
  const auto hundredths = static_cast<uint64_t>((seconds - static_cast<double>(whole)) * 100);
  if (style == TimeStyle::kFull || whole >= kMinute) {
    return fmt::format("{}:{:02}:{:02}.{:02}", whole / kHour, whole % kHour / kMinute, whole % kMinute, hundredths);
  }
  return fmt::format("{:02}.{:02} sec", whole, hundredths);
}

bool is_plain_character(std::byte byte) {
  const auto c = static_cast<unsigned char>(byte);
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/// How much of it would be done in a second.
double rate(double amount, double seconds) { return amount / std::max(seconds, 1e-9); }

}  // namespace

std::string render_io_size(double bytes) {
  constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::string number = fmt::format("{:f}", bytes);
  const char* unit = "bytes";
  for (size_t i = 0; i < kUnits.size() && bytes >= 1024; ++i) {
    bytes /= 1024;
    number = fmt::format("{:.3f}", bytes);
    unit = kUnits[i];
  }
  if (const size_t zeros = number.find(".000"); zeros != std::string::npos) number.resize(zeros);
  return fmt::format("{} {}", number, unit);
}

std::string render_io_report(const IoReport& report) {
  const auto bytes = static_cast<double>(report.bytes);
  return fmt::format("{} {}/{} bytes at offset {}\n{}, 1 ops; {} ({}/sec and {:.4f} ops/sec)\n", report.verb,
                     report.bytes, report.bytes, report.offset, render_io_size(bytes),
                     render_time(report.seconds, TimeStyle::kShort), render_io_size(rate(bytes, report.seconds)),
                     rate(1, report.seconds));
}

std::string render_machine_report(const IoReport& report) {
  return fmt::format("{},1,{},{:.3f},{:.3f}\n", report.bytes, render_time(report.seconds, TimeStyle::kFull),
                     rate(static_cast<double>(report.bytes), report.seconds), rate(1, report.seconds));
}

std::string render_dump(std::span<const std::byte> bytes, uint64_t offset) {
  constexpr size_t kPerLine = 16;
  std::string text;
  while (!bytes.empty()) {
    const auto line = bytes.first(std::min(kPerLine, bytes.size()));
    text += fmt::format("{:08x}:  ", offset);
    for (const std::byte byte : line) text += fmt::format("{:02x} ", static_cast<unsigned>(byte));
    text += ' ';
    for (const std::byte byte : line) text += is_plain_character(byte) ? static_cast<char>(byte) : '.';
    text += '\n';
    bytes = bytes.subspan(line.size());
    offset += line.size();
  }
  return text;
}

}  // namespace coimg
