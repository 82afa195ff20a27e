// What a batch says at its end.
#pragma once

#include <string>
#include <vector>

#include "cmd/batch/jobs.h"
#include "cmd/batch/run.h"
#include "cmd/paint.h"

namespace coimg {

/// All that a report is about.
struct BatchReport {
  const std::vector<BatchJob>& jobs;
  const std::vector<BatchResult>& results;
  unsigned most_at_once = 0;
  int exit_code = 0;
};

/// The highest exit code of a job.
int worst_exit_code(const std::vector<BatchResult>& results);

/// A line a job and one for all. `aligned`: in columns for a terminal; else fields are separated by a tab.
std::string render_batch_table(const BatchReport& report, bool aligned, Paint paint);

/// The same as JSON, with the output of the jobs.
std::string render_batch_json(const BatchReport& report);

/// What would run, in an order in which it could, as lines of text.
std::string render_batch_plan(const std::vector<BatchJob>& jobs, const std::vector<BatchResult>& results);

}  // namespace coimg
