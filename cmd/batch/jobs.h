// The jobs of a batch, and the file that describes them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/util/result.h"

namespace coimg {

/// One job, as the file says.
struct BatchJob {
  size_t line = 0;  ///< where it starts, counted from 1
  std::string id;
  std::vector<std::string> command;  ///< its name and what follows; not empty
  std::vector<size_t> after;         ///< indexes of the jobs that have to be done before
  std::vector<size_t> before;        ///< the other direction
  std::optional<unsigned> retries;
  std::optional<int64_t> timeout_ns;
  std::vector<std::string> outputs;  ///< files that it makes, besides those that the program sees itself
};

/// Reads the jobs: a JSON object a line, or a list of such objects in YAML. `is_command` tells which commands there
/// are. Errors: EINVAL "line N: ..." for what is wrong with a job, ids given twice or not at all, and jobs that wait
/// for themselves.
Result<std::vector<BatchJob>> parse_batch_jobs(std::string_view text,
                                               const std::function<bool(std::string_view)>& is_command);

/// All jobs, each behind those that it waits for, else as in the file.
std::vector<size_t> order_batch_jobs(const std::vector<BatchJob>& jobs);

}  // namespace coimg
