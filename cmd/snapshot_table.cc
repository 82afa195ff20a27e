#include "cmd/snapshot_table.h"

#include <fmt/format.h>

#include <ctime>

#include "cmd/size_format.h"

namespace coimg {

namespace {

std::string format_row(std::string_view id, std::string_view tag, std::string_view size, std::string_view date,
                       std::string_view clock, std::string_view icount) {
  return fmt::format("{:<9} {:<16} {:>8}{:>20}{:>13}{:>11}\n", id, tag, size, date, clock, icount);
}

std::string format_date(uint32_t seconds) {
  const std::time_t time = seconds;
  std::tm parts{};
  localtime_r(&time, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

std::string format_clock(uint64_t ns) {
  const uint64_t ms = ns / 1'000'000;
  const uint64_t seconds = ms / 1000;
  return fmt::format("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60, ms % 1000);
}

}  // namespace

std::string render_snapshot_table(const std::vector<SnapshotInfo>& snapshots) {
  std::string text = format_row("ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
  for (const SnapshotInfo& snapshot : snapshots) {
    text += format_row(snapshot.id, snapshot.name, render_size(snapshot.vm_state_bytes), format_date(snapshot.date_sec),
                       format_clock(snapshot.vm_clock_ns),
                       snapshot.icount.has_value() ? std::to_string(*snapshot.icount) : "");
  }
  return text;
}

}  // namespace coimg
