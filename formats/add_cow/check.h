// Finding damage in an add-cow image, and mending it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "block/driver.h"
#include "formats/add_cow/add_cow.h"

namespace coimg::add_cow {

/// One run of check over an open image that nobody else uses meanwhile. The backing file is not looked at.
///
/// What is wrong with the header is reported and left alone. Corruptions and what is only untidy are mended with
/// RepairMode::kAll, leaks with either mode.
class Checker {
 public:
  Checker(AddCow& image, const CheckOptions& options) : image_(image), options_(options) {}

  /// Errors: those of I/O, and nothing is known then.
  Result<CheckResult> run() coroutine_fn;

 private:
  Result<void> check_header() coroutine_fn;
  Result<void> tidy_header(std::vector<std::byte> bytes) coroutine_fn;
  Result<void> check_length() coroutine_fn;
  Result<void> check_bits() coroutine_fn;
  Result<void> check_completeness() coroutine_fn;
  struct BitCount {
    uint64_t set = 0, stray = 0;
  };
  Result<BitCount> count_bits(uint64_t begin, uint64_t end, uint64_t meaningful) coroutine_fn;
  struct Leaks {
    uint64_t clusters = 0, first = 0;
  };
  Result<void> check_leaks() coroutine_fn;
  Result<void> check_stored(uint64_t offset, uint64_t end, Leaks& leaks) coroutine_fn;

  [[nodiscard]] bool repairs_all() const { return options_.repair == RepairMode::kAll; }
  void report(const std::string& line) { options_.reporter->finding(line); }
  /// Reports a corruption, as one to be mended if that is wanted.
  void report_corruption(const std::string& what);

  AddCow& image_;
  const CheckOptions& options_;
  CheckResult result_;
};

}  // namespace coimg::add_cow
