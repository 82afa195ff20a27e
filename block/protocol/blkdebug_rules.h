// BlkdebugRules: which requests a fault injector lets fail. No I/O.
//
// An injector is in a state, a number that starts as 1. When an event takes place, the rules for that event and state
// apply: "inject-error" rules come into force, and take the place of those that were in force before; a "set-state"
// rule changes the state, after all rules were looked at. A request fails by the first rule in force that fits it.
#pragma once

#include <cerrno>
#include <cstdint>
#include <list>
#include <optional>
#include <vector>

#include "block/debug_events.h"

namespace coimg {

/// Kinds of requests, as bits for masks.
enum BlkdebugIo : unsigned {
  kBlkdebugRead = 1,
  kBlkdebugWrite = 2,
  kBlkdebugWriteZeroes = 4,
  kBlkdebugDiscard = 8,
  kBlkdebugFlush = 16,
  kBlkdebugBlockStatus = 32,
};

struct InjectErrorRule {
  DebugEvent event = DebugEvent::kNone;
  unsigned state = 0;  ///< 0: in any state
  int errnum = EIO;    ///< what the request fails with; 0 or less: it does not
  unsigned io = kBlkdebugRead | kBlkdebugWrite | kBlkdebugWriteZeroes | kBlkdebugDiscard | kBlkdebugFlush;
  std::optional<uint64_t> offset = {};  ///< a byte that the request has to touch; nothing: any request
  bool once = false;                    ///< the rule is gone after one failure
  bool immediately = false;             ///< the failure does not wait for the loop's next turn
};

struct SetStateRule {
  DebugEvent event = DebugEvent::kNone;
  unsigned state = 0;  ///< 0: in any state
  unsigned new_state = 0;
};

class BlkdebugRules {
 public:
  void add(const InjectErrorRule& rule) { errors_.push_back(rule); }
  void add(const SetStateRule& rule) { transitions_.push_back(rule); }

  /// Applies the rules for the event.
  void on_event(DebugEvent event);

  struct Failure {
    int errnum;
    bool immediately;
  };
  /// How a request of a kind (one of BlkdebugIo) is to fail; nothing: it goes on.
  std::optional<Failure> find_failure(BlkdebugIo io, uint64_t offset, uint64_t bytes);

  [[nodiscard]] unsigned state() const { return state_; }

 private:
  using Errors = std::list<InjectErrorRule>;  // whose members stay where they are when others are removed

  Errors errors_;
  std::vector<SetStateRule> transitions_;
  std::vector<Errors::iterator> in_force_;
  unsigned state_ = 1;
};

}  // namespace coimg
