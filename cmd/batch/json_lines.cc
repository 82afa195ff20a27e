#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "cmd/batch/job_text.h"

namespace coimg {

Result<std::vector<JobText>> read_json_lines(std::string_view text) {
  std::vector<JobText> jobs;
  for (size_t line = 1; !text.empty(); ++line) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view words = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (words.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    auto value = nlohmann::json::parse(words, nullptr, false);
    if (value.is_discarded()) return Error(EINVAL, fmt::format("line {}: this is no JSON", line));
    jobs.push_back({line, std::move(value)});
  }
  return jobs;
}

}  // namespace coimg
