// SnapshotChoice: the option -l of commands that read an image as an internal snapshot has kept it.
#pragma once

#include <string>
#include <vector>

#include "block/node.h"
#include "block/util/result.h"
#include "cmd/option_declarer.h"
#include "coroutine/annotations.h"

namespace coimg {

class SnapshotChoice {
 public:
  void declare(OptionDeclarer& options);

  /// "snapshot.id=ID,snapshot.name=NAME", or a bare ID or else name.
  Result<void> parse(const std::string& text);

  [[nodiscard]] bool given() const { return !choices_.empty(); }

  /// Makes a read-only image show the snapshot. Errors: "Failed to load snapshot: CAUSE".
  Result<void> show(BlockNode& node) const coroutine_fn;

 private:
  std::vector<SnapshotSelector> choices_;  ///< the first that exists counts
};

}  // namespace coimg
