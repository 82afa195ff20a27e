#include "cmd/batch/run.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "cmd/batch/report.h"
#include "coroutine/main_loop.h"
#include "formats/registry.h"

namespace coimg {
namespace {

using ::testing::HasSubstr;

/// Batches over files in a directory of their own.
class BatchRunTest : public ::testing::Test {
 protected:
  BatchRunTest() : directory_(::testing::TempDir() + fmt::format("batch-{}", getpid())) {
    MainLoop::init();
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directory(directory_);
    register_builtin_drivers(registry_);
  }
  ~BatchRunTest() override { std::filesystem::remove_all(directory_); }

  [[nodiscard]] std::string path(const std::string& name) const { return directory_ + "/" + name; }

  void add(const std::string& id, std::vector<std::string> command, const std::vector<std::string>& after = {}) {
    BatchJob job;
    job.id = id;
    job.command = std::move(command);
    const size_t index = jobs_.size();
    for (const std::string& other : after) {
      job.after.push_back(index_.at(other));
      jobs_[index_.at(other)].before.push_back(index);
    }
    index_[id] = index;
    jobs_.push_back(std::move(job));
  }
  void add_create(const std::string& id, const std::vector<std::string>& after = {}) {
    add(id, {"create", "-q", "-f", "qcow2", path(id), "1M"}, after);
  }
  void add_failing(const std::string& id, const std::vector<std::string>& after = {}) {
    add(id, {"info", path("no such file")}, after);
  }

  void run(const BatchOptions& options, bool resume = false) {
    BatchState state;
    ASSERT_TRUE(state.open(path("state"), resume).ok());
    BatchRun run(context_, jobs_, state, options, [](size_t) {});
    if (resume) run.take_over();
    run_in_main_loop([&]() coroutine_fn { EXPECT_TRUE(run.run().ok()); });
    results_ = run.results();
    most_at_once_ = run.most_at_once();
  }

  [[nodiscard]] const BatchResult& result(const std::string& id) const { return results_.at(index_.at(id)); }
  [[nodiscard]] BatchStatus status(const std::string& id) const { return result(id).status; }
  [[nodiscard]] size_t count(BatchStatus status) const {
    return static_cast<size_t>(
        std::ranges::count_if(results_, [status](const BatchResult& one) { return one.status == status; }));
  }

  std::string directory_;
  DriverRegistry registry_;
  Console console_{"coimg", true, Paint()};
  Program program_{.name = "coimg"};
  CommandContext context_{.registry = registry_, .console = console_, .program = program_};
  std::vector<BatchJob> jobs_;
  std::map<std::string, size_t> index_;
  std::vector<BatchResult> results_;
  unsigned most_at_once_ = 0;
};

TEST_F(BatchRunTest, FiveHundredJobsWithFailuresAmongThem) {
  for (int i = 0; i < 100; ++i) {
    const std::string n = std::to_string(i);
    add_create("make" + n);
    if (i % 10 == 0) {
      add_failing("look" + n, {"make" + n});
    } else {
      add("look" + n, {"info", path("make" + n)}, {"make" + n});
    }
    add("copy" + n, {"convert", "-O", "raw", path("make" + n), path("copy" + n)}, {"look" + n});
    add("check" + n, {"check", "-q", path("make" + n)}, {"copy" + n, "look" + n});
    add("compare" + n, {"compare", "-q", path("make" + n), path("copy" + n)}, {"copy" + n});
  }
  ASSERT_EQ(jobs_.size(), 500U);
  run({.jobs = 7, .retries = 1, .keep_going = true});
  EXPECT_EQ(count(BatchStatus::kFailed), 10U);
  EXPECT_EQ(count(BatchStatus::kSkipped), 30U);
  EXPECT_EQ(count(BatchStatus::kDone), 460U);
  EXPECT_EQ(most_at_once_, 7U);
  EXPECT_EQ(result("look0").tries, 2U);
  EXPECT_THAT(result("look0").output.err, HasSubstr("No such file or directory"));
  EXPECT_THAT(result("look1").output.out, HasSubstr("file format: qcow2"));
  EXPECT_EQ(result("check0").reason, "'look0' failed");
  EXPECT_EQ(worst_exit_code(results_), 1);

  run({.jobs = 7, .keep_going = true}, true);
  EXPECT_EQ(count(BatchStatus::kDoneBefore), 460U);
  EXPECT_EQ(count(BatchStatus::kFailed), 10U) << "what failed is tried again";
  EXPECT_EQ(most_at_once_, 7U);
}

TEST_F(BatchRunTest, NeverRunsMoreThanItMay) {
  for (int i = 0; i < 40; ++i) add_create("make" + std::to_string(i));
  for (const unsigned jobs : {1U, 3U}) {
    run({.jobs = jobs});
    EXPECT_EQ(most_at_once_, jobs);
    EXPECT_EQ(count(BatchStatus::kDone), 40U);
  }
}

TEST_F(BatchRunTest, AFailureStartsNothingMore) {
  add_failing("a");
  add_create("b");
  add_create("c", {"a"});
  run({.jobs = 1});
  EXPECT_EQ(status("a"), BatchStatus::kFailed);
  EXPECT_EQ(status("b"), BatchStatus::kNotRun);
  EXPECT_EQ(status("c"), BatchStatus::kSkipped);
  EXPECT_FALSE(std::filesystem::exists(path("b")));
  run({.jobs = 1, .keep_going = true});
  EXPECT_EQ(status("b"), BatchStatus::kDone);
  EXPECT_EQ(status("c"), BatchStatus::kSkipped);
}

TEST_F(BatchRunTest, AJobsRetriesGoBeforeThoseOfAll) {
  add_failing("a");
  add_failing("b");
  jobs_[1].retries = 3;
  add_failing("c");
  jobs_[2].retries = 0;
  run({.jobs = 3, .retries = 1, .keep_going = true});
  EXPECT_EQ(result("a").tries, 2U);
  EXPECT_EQ(result("b").tries, 4U);
  EXPECT_EQ(result("c").tries, 1U);
}

TEST_F(BatchRunTest, WarningsAndMessagesStayWithTheirJobs) {
  add_failing("a");
  add("b", {"info", "--nonsense"});
  add("c", {"io", path("x")});
  run({.jobs = 3, .keep_going = true});
  EXPECT_EQ(result("a").output.err,
            fmt::format("coimg: Could not open '{0}': Could not open '{0}': No such file or directory\n",
                        path("no such file")));
  EXPECT_THAT(result("b").output.err, HasSubstr("unrecognized option '--nonsense'"));
  EXPECT_THAT(result("c").output.err, HasSubstr("a job has no standard input"));
  EXPECT_EQ(count(BatchStatus::kFailed), 3U);
}

TEST_F(BatchRunTest, ResumingRepeatsWhatHasChanged) {
  add_create("base");
  add("copy", {"convert", "-O", "qcow2", path("base"), path("copy")}, {"base"});
  add("resize", {"resize", "-q", path("copy"), "2M"}, {"copy"});
  add_create("other");
  run({.jobs = 2});
  ASSERT_EQ(count(BatchStatus::kDone), 4U);

  run({.jobs = 2}, true);
  EXPECT_EQ(count(BatchStatus::kDoneBefore), 4U) << "a later job may change the output of an earlier one";

  std::ofstream(path("copy"), std::ios::app) << "x";
  run({.jobs = 2}, true);
  EXPECT_EQ(status("base"), BatchStatus::kDoneBefore);
  EXPECT_EQ(status("copy"), BatchStatus::kDone);
  EXPECT_EQ(status("resize"), BatchStatus::kDone);
  EXPECT_EQ(status("other"), BatchStatus::kDoneBefore);

  std::filesystem::remove(path("base"));
  run({.jobs = 2}, true);
  EXPECT_EQ(status("base"), BatchStatus::kDone);
  EXPECT_EQ(status("copy"), BatchStatus::kDone) << "what it was made from has changed";

  jobs_[3].command.back() = "3M";
  run({.jobs = 2}, true);
  EXPECT_EQ(status("other"), BatchStatus::kDone) << "another command";
  EXPECT_EQ(count(BatchStatus::kDoneBefore), 3U);
}

TEST_F(BatchRunTest, ALineThatWasCutOffIsAJobThatIsNotDone) {
  add_create("a");
  add_create("b", {"a"});
  run({.jobs = 1});
  std::filesystem::resize_file(path("state"), std::filesystem::file_size(path("state")) - 5);
  run({.jobs = 1}, true);
  EXPECT_EQ(status("a"), BatchStatus::kDoneBefore);
  EXPECT_EQ(status("b"), BatchStatus::kDone);
  run({.jobs = 1}, true);
  EXPECT_EQ(count(BatchStatus::kDoneBefore), 2U) << "what came behind the cut-off line is read";
}

TEST_F(BatchRunTest, AllJobsShareTheRateLimit) {
  std::ofstream(path("data")) << std::string(1 << 20, 'x');
  for (const char* id : {"a", "b", "c"}) {
    add(id, {"convert", "-f", "raw", "-O", "raw", "-S", "0", path("data"), path(id)});
  }
  const auto started = std::chrono::steady_clock::now();
  run({.jobs = 3, .rate_limit = 4 << 20});
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  EXPECT_EQ(count(BatchStatus::kDone), 3U);
  EXPECT_GE(took.count(), 0.35) << "the first MiB is free, and the bucket holds a tenth of a second";
}

TEST_F(BatchRunTest, AJobIsStoppedWhenItsTimeIsUp) {
  std::ofstream(path("data")) << std::string(4 << 20, 'x');
  add("a", {"convert", "-f", "raw", "-O", "raw", "-r", "1k", path("data"), path("a")});
  jobs_[0].timeout_ns = 300'000'000;
  add_create("b");
  run({.jobs = 2, .keep_going = true});
  EXPECT_EQ(status("a"), BatchStatus::kTimedOut);
  EXPECT_EQ(result("a").exit_code, kTimedOutExitCode);
  EXPECT_FALSE(std::filesystem::exists(path("a"))) << "it cleans up";
  EXPECT_EQ(status("b"), BatchStatus::kDone);
}

TEST_F(BatchRunTest, ReportsAreTablesAndJson) {
  add_create("a");
  add_failing("a longer one");
  add_create("c", {"a longer one"});
  run({.jobs = 1});
  for (BatchResult& one : results_) one.seconds = 0.25;
  const BatchReport report{.jobs = jobs_, .results = results_, .most_at_once = 1, .exit_code = 1};
  EXPECT_EQ(render_batch_table(report, true, Paint()),
            "JOB           STATUS   EXIT  TRIES  SECONDS  REASON\n"
            "a             done        0      1     0.25\n"
            "a longer one  failed      1      1     0.25\n"
            "c             skipped     -      -        -  'a longer one' failed\n"
            "1 done, 1 failed, 1 skipped\n");
  EXPECT_THAT(render_batch_table(report, false, Paint()), HasSubstr("\na longer one\tfailed\t1\t1\t0.25\t\n"));
  EXPECT_THAT(render_batch_json(report), HasSubstr("\"status\": \"skipped\""));
  EXPECT_THAT(render_batch_json(report), HasSubstr("\"exit-code\": 1\n}\n"));
}

}  // namespace
}  // namespace coimg
