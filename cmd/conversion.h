// Conversion: one run of convert, from opened sources to a complete target.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/copy.h"
#include "block/node.h"
#include "block/options.h"
#include "block/protocol/new_files.h"
#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/option_list.h"
#include "cmd/progress.h"
#include "cmd/snapshot_choice.h"
#include "cmd/stop_signals.h"
#include "cmd/target.h"

namespace coimg {

/// What the command line asks for, checked as far as that goes without files.
struct ConvertRequest {
  ImageOptions image;  ///< of all sources
  std::vector<std::string> sources;
  std::string target;
  std::optional<std::string> target_format;  ///< nothing only with target_image_opts
  OptionList option_list;
  std::optional<std::string> backing, backing_format;
  SnapshotChoice snapshot;
  CacheMode source_cache, target_cache;
  uint64_t rate_limit = 0;       ///< bytes a second; 0 for none
  uint64_t sparse_bytes = 4096;  ///< see CopyOptions
  unsigned workers = 8;
  unsigned compression_level = 0;  ///< 0: the format's choice
  bool compress = false, out_of_order = false, salvage = false;
  bool bitmaps = false, skip_broken_bitmaps = false;
  bool verify = false;
  bool skip_create = false, target_is_zero = false, target_image_opts = false;
  bool quiet = false;
};

/// Opens, creates, copies and closes. A target that is created has its name only when it is complete.
class Conversion {
 public:
  /// All outlive the object.
  Conversion(CommandContext& context, const ConvertRequest& request, Progress& progress);

  /// Returns the exit code. An interrupted run sets the context's fatal_signal.
  Result<int> run() coroutine_fn;

 private:
  Result<int> convert() coroutine_fn;
  Result<void> open_sources() coroutine_fn;
  Result<void> show_snapshot() coroutine_fn;
  Result<void> plan_target() coroutine_fn;
  Result<void> check_backing() const;
  Result<void> check_compression(const DriverType& type) const;
  Result<void> check_not_a_source() const;
  Result<void> create_target() coroutine_fn;
  Result<void> open_target() coroutine_fn;
  [[nodiscard]] const BlockNode* find_common_backing() const;
  Result<void> copy() coroutine_fn;
  Result<void> verify() coroutine_fn;
  Result<void> reopen_target() coroutine_fn;
  [[nodiscard]] ProgressCallback part_of_progress(unsigned part);
  Result<void> check_bitmaps() const;
  Result<void> copy_bitmaps() coroutine_fn;
  Result<void> add_target_bitmap(const BitmapInfo& bitmap) coroutine_fn;
  Result<void> fill_target_bitmap(const std::string& name) coroutine_fn;
  Result<void> close_all() coroutine_fn;
  Result<void> publish_target() coroutine_fn;
  [[nodiscard]] bool has_backing() const { return backing_.has_value(); }

  CommandContext& context_;
  const ConvertRequest& request_;
  Progress& progress_;
  NewFiles new_files_;  ///< outlives the target
  std::vector<std::unique_ptr<BlockNode>> sources_;
  uint64_t source_bytes_ = 0;  ///< of all sources together
  std::optional<std::string> backing_, backing_format_;
  TargetType target_type_;                       ///< unless creation is skipped
  std::optional<CreateOptions> create_options_;  ///< unless creation is skipped
  std::unique_ptr<BlockNode> target_;
  StopSignals stop_signals_;
};

}  // namespace coimg
