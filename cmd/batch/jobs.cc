#include "cmd/batch/jobs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "cmd/batch/job_text.h"
#include "cmd/batch/shell_words.h"

namespace coimg {

namespace {

using nlohmann::json;

constexpr size_t kMaxJobs = 100'000;        ///< the report holds all of them
constexpr unsigned kMaxRetries = 1000;      ///< more is a mistake
constexpr double kMaxTimeoutSeconds = 1e9;  ///< some thirty years: far from overflow in nanoseconds
constexpr size_t kShownCycle = 10;          ///< ids in a message

/// A job whose `after` are still ids.
struct ParsedJob {
  BatchJob job;
  std::vector<std::string> after;
};

Result<std::string> take_string(const std::string& key, const json& value) {
  if (!value.is_string()) return Error(EINVAL, fmt::format("'{}' has to be a string", key));
  auto text = value.get<std::string>();
  if (text.find('\0') != std::string::npos) return Error(EINVAL, fmt::format("'{}' has a NUL character", key));
  return text;
}

Result<std::vector<std::string>> take_strings(const std::string& key, const json& value) {
  std::vector<std::string> strings;
  if (!value.is_array()) return Error(EINVAL, fmt::format("'{}' has to be a list of strings", key));
  for (const json& element : value) strings.push_back(COIMG_TRY(take_string(key, element)));
  return strings;
}

/// A number, or text that is one: in YAML all is text. NaN when it is neither.
double number_of(const json& value) {
  if (value.is_number()) return value.get<double>();
  double number = NAN;
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (problem != std::errc() || end != text.data() + text.size()) return NAN;
  }
  return number;
}

Result<void> take_member(ParsedJob& parsed, const std::string& key, const json& value) {
  BatchJob& job = parsed.job;
  if (key == "id") {
    job.id = COIMG_TRY(take_string(key, value));
  } else if (key == "command") {
    job.command = value.is_string() ? COIMG_TRY(split_shell_words(COIMG_TRY(take_string(key, value))))
                                    : COIMG_TRY(take_strings(key, value));
  } else if (key == "after") {
    parsed.after = COIMG_TRY(take_strings(key, value));
  } else if (key == "outputs") {
    job.outputs = COIMG_TRY(take_strings(key, value));
  } else if (key == "retries") {
    const double retries = number_of(value);
    if (!(retries >= 0) || retries > kMaxRetries || retries != std::floor(retries)) {
      return Error(EINVAL, fmt::format("'retries' has to be a number from 0 to {}", kMaxRetries));
    }
    job.retries = static_cast<unsigned>(retries);
  } else if (key == "timeout") {
    const double seconds = number_of(value);
    if (!(seconds > 0) || seconds > kMaxTimeoutSeconds) {
      return Error(EINVAL, "'timeout' has to be a number of seconds greater than 0");
    }
    job.timeout_ns = static_cast<int64_t>(seconds * 1e9);
  } else {
    return Error(EINVAL, fmt::format("a job has no member '{}'", key));
  }
  return {};
}

Result<ParsedJob> parse_job(const JobText& text, const std::function<bool(std::string_view)>& is_command) {
  if (!text.value.is_object()) return Error(EINVAL, "a job has to be an object");
  ParsedJob parsed;
  parsed.job.line = text.line;
  for (const auto& [key, value] : text.value.items()) COIMG_TRY(take_member(parsed, key, value));
  const BatchJob& job = parsed.job;
  if (job.id.empty()) return Error(EINVAL, "the job has no 'id'");
  // An id is printed as it is.
  if (std::ranges::any_of(job.id, [](unsigned char byte) { return byte < 0x20 || byte == 0x7f; })) {
    return Error(EINVAL, "'id' has a control character");
  }
  if (job.command.empty()) return Error(EINVAL, fmt::format("job '{}' has no 'command'", job.id));
  if (job.command.front() == "batch") return Error(EINVAL, "a batch cannot be a job");
  if (!is_command(job.command.front())) {
    return Error(EINVAL, fmt::format("command not found: {}", job.command.front()));
  }
  return parsed;
}

Error at_line(size_t line, Error error) { return std::move(error).with_context(fmt::format("line {}", line)); }

/// Turns the ids of `after` into indexes.
Result<std::vector<BatchJob>> connect(std::vector<ParsedJob> parsed, const std::map<std::string, size_t>& index_of) {
  std::vector<BatchJob> jobs;
  for (ParsedJob& one : parsed) jobs.push_back(std::move(one.job));
  for (size_t index = 0; index < jobs.size(); ++index) {
    BatchJob& job = jobs[index];
    const std::set<std::string> ids(parsed[index].after.begin(), parsed[index].after.end());
    for (const std::string& id : ids) {
      const auto found = index_of.find(id);
      if (found == index_of.end()) {
        return at_line(job.line, {EINVAL, fmt::format("job '{}' waits for '{}', which there is not", job.id, id)});
      }
      job.after.push_back(found->second);
      jobs[found->second].before.push_back(index);
    }
  }
  return jobs;
}

/// The first job that waits for itself through others.
Error cycle_error(const std::vector<BatchJob>& jobs, const std::vector<size_t>& ordered) {
  std::vector<bool> sound(jobs.size());
  for (const size_t index : ordered) sound[index] = true;
  // Each job that is left waits for another one that is left, so this walk comes to one that it has been at.
  size_t at = 0;
  while (sound[at]) ++at;
  std::vector<size_t> path;
  std::vector<size_t> place(jobs.size(), SIZE_MAX);
  while (place[at] == SIZE_MAX) {
    place[at] = path.size();
    path.push_back(at);
    for (const size_t next : jobs[at].after) {
      if (sound[next]) continue;
      at = next;
      break;
    }
  }
  std::vector<std::string> ids;
  for (size_t i = place[at]; i < path.size() && ids.size() < kShownCycle; ++i) ids.push_back(jobs[path[i]].id);
  if (path.size() - place[at] > kShownCycle) ids.emplace_back("...");
  ids.push_back(jobs[at].id);
  return at_line(jobs[at].line,
                 {EINVAL, fmt::format("job '{}' waits for itself: {}", jobs[at].id, fmt::join(ids, " after "))});
}

}  // namespace

std::vector<size_t> order_batch_jobs(const std::vector<BatchJob>& jobs) {
  std::vector<size_t> waits_for(jobs.size());
  std::set<size_t> ready;
  for (size_t index = 0; index < jobs.size(); ++index) {
    waits_for[index] = jobs[index].after.size();
    if (waits_for[index] == 0) ready.insert(index);
  }
  std::vector<size_t> order;
  while (!ready.empty()) {
    const size_t index = *ready.begin();
    ready.erase(ready.begin());
    order.push_back(index);
    for (const size_t next : jobs[index].before) {
      if (--waits_for[next] == 0) ready.insert(next);
    }
  }
  return order;
}

Result<std::vector<BatchJob>> parse_batch_jobs(std::string_view text,
                                               const std::function<bool(std::string_view)>& is_command) {
  // No list in YAML starts like an object in JSON.
  const size_t start = text.find_first_not_of(" \t\r\n");
  const bool is_json_lines = start == std::string_view::npos || text[start] == '{';
  const std::vector<JobText> texts = COIMG_TRY(is_json_lines ? read_json_lines(text) : read_yaml(text));
  if (texts.size() > kMaxJobs) return Error(EINVAL, fmt::format("there are more than {} jobs", kMaxJobs));
  std::vector<ParsedJob> parsed;
  std::map<std::string, size_t> index_of;
  for (const JobText& one : texts) {
    auto job = parse_job(one, is_command);
    if (!job.ok()) return at_line(one.line, std::move(job).error());
    const auto [same, is_new] = index_of.emplace(job->job.id, parsed.size());
    if (!is_new) {
      return at_line(one.line, {EINVAL, fmt::format("line {} has a job '{}' already", parsed[same->second].job.line,
                                                    job->job.id)});
    }
    parsed.push_back(*std::move(job));
  }
  std::vector<BatchJob> jobs = COIMG_TRY(connect(std::move(parsed), index_of));
  const std::vector<size_t> ordered = order_batch_jobs(jobs);
  if (ordered.size() != jobs.size()) return cycle_error(jobs, ordered);
  return jobs;
}

}  // namespace coimg
