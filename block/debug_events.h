// Debug events: places in the work on an image that fault injection can be told to act at.
//
// Formats announce them on the node of their file, the block layer on the node that a request reaches:
//
//     file_.debug_event(DebugEvent::kL2Load);
//
// Nothing happens unless that node is a fault injector (protocol/blkdebug.h), which may change its state, arm errors
// for the requests to come, or hold up the caller until somebody resumes it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "block/util/result.h"
#include "coroutine/annotations.h"

namespace coimg {

/// The places, in the order of their names in debug_events.cc. Not every format comes by all of them.
enum class DebugEvent : uint8_t {
  kL1Update,
  kL1GrowAllocTable,
  kL1GrowWriteTable,
  kL1GrowActivateTable,
  kL2Load,
  kL2Update,
  kL2UpdateCompressed,
  kL2AllocCowRead,
  kL2AllocWrite,
  kReadAio,
  kReadBackingAio,
  kReadCompressed,
  kWriteAio,
  kWriteCompressed,
  kVmStateLoad,
  kVmStateSave,
  kCowRead,
  kCowWrite,
  kReftableLoad,
  kReftableGrow,
  kReftableUpdate,
  kRefblockLoad,
  kRefblockUpdate,
  kRefblockUpdatePart,
  kRefblockAlloc,
  kRefblockAllocHookup,
  kRefblockAllocWrite,
  kRefblockAllocWriteBlocks,
  kRefblockAllocWriteTable,
  kRefblockAllocSwitchTable,
  kClusterAlloc,
  kClusterAllocBytes,
  kClusterFree,
  kClusterAllocSpace,
  kFlushToOs,
  kFlushToDisk,
  kPwritevRmwHead,
  kPwritevRmwAfterHead,
  kPwritevRmwTail,
  kPwritevRmwAfterTail,
  kPwritev,
  kPwritevZero,
  kPwritevDone,
  kEmptyImagePrepare,
  kL1ShrinkWriteTable,
  kL1ShrinkFreeL2Clusters,
  kCorWrite,
  kNone,  ///< never takes place; rules for it are in force from the start
};

/// "l2_load". The names are those of QEMU.
std::string_view debug_event_name(DebugEvent event);
/// Nothing for an unknown name.
std::optional<DebugEvent> find_debug_event(std::string_view name);

/// What the events of a node are told to. Everything is for the AioContext of the node.
class BlockDebugger {
 public:
  virtual ~BlockDebugger() = default;

  /// May hold up the caller for any time.
  virtual void on_event(DebugEvent event) coroutine_fn = 0;

  /// The next request that comes by `event` is suspended there, as `tag`. ENOENT for an unknown name.
  virtual Result<void> add_breakpoint(std::string_view event, const std::string& tag) = 0;
  /// Removes the breakpoints that nobody has come by yet, and resumes requests that have the tag. ENOENT when there was
  /// no such breakpoint.
  virtual Result<void> remove_breakpoint(const std::string& tag) = 0;
  /// Resumes the request that has been suspended as `tag` first. ENOENT when there is none.
  virtual Result<void> resume(const std::string& tag) = 0;
  [[nodiscard]] virtual bool is_suspended(const std::string& tag) const = 0;
  /// How many requests (not tags) are suspended.
  [[nodiscard]] virtual unsigned suspended_requests() const = 0;
  /// Removes all breakpoints and resumes all requests.
  virtual void release_all() = 0;

  /// Receives a line, without newline, when a request is suspended or resumed. Does not yield.
  using Listener = std::function<void(std::string_view line)>;
  void set_listener(Listener listener) { listener_ = std::move(listener); }

 protected:
  void tell(std::string_view line) const {
    if (listener_) listener_(line);
  }

 private:
  Listener listener_;
};

}  // namespace coimg
