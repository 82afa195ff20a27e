#include "cmd/batch/report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string_view>

#include "cmd/json_writer.h"

namespace coimg {

namespace {

std::string_view status_name(BatchStatus status) {
  switch (status) {
    case BatchStatus::kNotRun:
      return "not run";
    case BatchStatus::kDone:
      return "done";
    case BatchStatus::kDoneBefore:
      return "done before";
    case BatchStatus::kFailed:
      return "failed";
    case BatchStatus::kTimedOut:
      return "timed out";
    case BatchStatus::kSkipped:
      return "skipped";
    case BatchStatus::kInterrupted:
      return "interrupted";
  }
  return {};
}

std::optional<Tint> status_tint(BatchStatus status) {
  switch (status) {
    case BatchStatus::kDone:
      return Tint::kGood;
    case BatchStatus::kFailed:
    case BatchStatus::kTimedOut:
      return Tint::kBad;
    case BatchStatus::kSkipped:
    case BatchStatus::kInterrupted:
      return Tint::kDoubtful;
    case BatchStatus::kNotRun:
    case BatchStatus::kDoneBefore:
      return std::nullopt;
  }
  return std::nullopt;
}

constexpr std::array kStatuses = {BatchStatus::kDone,     BatchStatus::kDoneBefore, BatchStatus::kFailed,
                                  BatchStatus::kTimedOut, BatchStatus::kSkipped,    BatchStatus::kInterrupted,
                                  BatchStatus::kNotRun};

std::map<BatchStatus, uint64_t> count_statuses(const std::vector<BatchResult>& results) {
  std::map<BatchStatus, uint64_t> counts;
  for (const BatchResult& result : results) ++counts[result.status];
  return counts;
}

using Row = std::array<std::string, 6>;

Row make_row(const BatchJob& job, const BatchResult& result) {
  Row row = {job.id, std::string(status_name(result.status)), "-", "-", "-", result.reason};
  if (result.tries == 0) return row;
  row[2] = std::to_string(result.exit_code);
  row[3] = std::to_string(result.tries);
  row[4] = fmt::format("{:.2f}", result.seconds);
  return row;
}

/// Numbers are to the right; the last column is as long as it is. The first row is a heading.
std::string render_aligned(const std::vector<Row>& rows, const std::vector<BatchResult>& results, Paint paint) {
  std::array<size_t, 5> widths{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], fmt::formatted_size("{}", row[i]));
    }
  }
  std::string text;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    const std::optional<Tint> tint = i == 0 ? std::nullopt : status_tint(results[i - 1].status);
    const std::string status = tint.has_value() ? paint(*tint, row[1]) : row[1];  // its colour has no width
    std::string line = fmt::format("{:<{}}  {}{:<{}}  {:>{}}  {:>{}}  {:>{}}  {}", row[0], widths[0], status, "",
                                   widths[1] - fmt::formatted_size("{}", row[1]), row[2], widths[2], row[3], widths[3],
                                   row[4], widths[4], row[5]);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace

int worst_exit_code(const std::vector<BatchResult>& results) {
  int worst = 0;
  for (const BatchResult& result : results) worst = std::max(worst, result.exit_code);
  return worst;
}

std::string render_batch_table(const BatchReport& report, bool aligned, Paint paint) {
  std::vector<Row> rows = {{"JOB", "STATUS", "EXIT", "TRIES", "SECONDS", "REASON"}};
  for (size_t i = 0; i < report.jobs.size(); ++i) rows.push_back(make_row(report.jobs[i], report.results[i]));
  std::string text;
  if (aligned) {
    text = render_aligned(rows, report.results, paint);
  } else {
    for (const Row& row : rows) text += fmt::format("{}\n", fmt::join(row, "\t"));
  }
  const auto counts = count_statuses(report.results);
  std::string sum;
  for (const BatchStatus status : kStatuses) {
    const auto count = counts.find(status);
    if (count == counts.end()) continue;
    sum += fmt::format("{}{} {}", sum.empty() ? "" : ", ", count->second, status_name(status));
  }
  return text + (sum.empty() ? "no jobs" : sum) + "\n";
}

std::string render_batch_json(const BatchReport& report) {
  JsonValue jobs = JsonValue::array();
  for (size_t i = 0; i < report.jobs.size(); ++i) {
    const BatchJob& job = report.jobs[i];
    const BatchResult& result = report.results[i];
    JsonValue entry = JsonValue::object();
    entry.add("id", job.id);
    entry.add("line", uint64_t{job.line});
    entry.add("status", status_name(result.status));
    if (result.tries != 0) {
      entry.add("exit-code", int64_t{result.exit_code});
      entry.add("tries", result.tries);
      entry.add("seconds", result.seconds);
      entry.add("stdout", result.output.out);
      entry.add("stderr", result.output.err);
      if (result.output.cut) entry.add("output-cut", true);
    }
    if (!result.reason.empty()) entry.add("reason", result.reason);
    jobs.append(std::move(entry));
  }
  const auto counts = count_statuses(report.results);
  JsonValue sum = JsonValue::object();
  for (const BatchStatus status : kStatuses) {
    const auto count = counts.find(status);
    std::string key(status_name(status));
    std::ranges::replace(key, ' ', '-');
    sum.add(std::move(key), count == counts.end() ? uint64_t{0} : count->second);
  }
  JsonValue all = JsonValue::object();
  all.add("jobs", std::move(jobs));
  all.add("summary", std::move(sum));
  all.add("most-at-once", report.most_at_once);
  all.add("exit-code", int64_t{report.exit_code});
  return all.render();
}

std::string render_batch_plan(const std::vector<BatchJob>& jobs, const std::vector<BatchResult>& results) {
  std::string text;
  for (const size_t index : order_batch_jobs(jobs)) {
    const bool done = results[index].status == BatchStatus::kDoneBefore;
    text += fmt::format("{}: {}{}\n", jobs[index].id, done ? "done before: " : "", fmt::join(jobs[index].command, " "));
  }
  return text;
}

}  // namespace coimg
