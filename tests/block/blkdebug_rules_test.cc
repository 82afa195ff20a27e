// Tests block/protocol/blkdebug_rules.cc: which requests fail, without any.
#include "block/protocol/blkdebug_rules.h"

#include <gtest/gtest.h>

namespace coimg {
namespace {

/// The errno of a request for 512 bytes at `offset`; 0 when it does not fail.
int failure(BlkdebugRules& rules, BlkdebugIo io = kBlkdebugRead, uint64_t offset = 0) {
  const auto found = rules.find_failure(io, offset, 512);
  return found ? found->errnum : 0;
}

TEST(BlkdebugRulesTest, ARuleIsInForceFromItsEventOn) {
  BlkdebugRules rules;
  rules.add(InjectErrorRule{.event = DebugEvent::kL2Load, .errnum = ENOSPC});
  EXPECT_EQ(failure(rules), 0);
  rules.on_event(DebugEvent::kReadAio);
  EXPECT_EQ(failure(rules), 0);
  rules.on_event(DebugEvent::kL2Load);
  EXPECT_EQ(failure(rules), ENOSPC);
  EXPECT_EQ(failure(rules), ENOSPC);
  rules.on_event(DebugEvent::kReadAio);  // has no rule, so nothing changes
  EXPECT_EQ(failure(rules), ENOSPC);
}

TEST(BlkdebugRulesTest, ALaterEventsRulesTakeThePlaceOfThoseInForce) {
  BlkdebugRules rules;
  rules.add(InjectErrorRule{.event = DebugEvent::kL2Load, .errnum = ENOSPC});
  rules.add(InjectErrorRule{.event = DebugEvent::kWriteAio, .errnum = ENOMEM});
  rules.on_event(DebugEvent::kL2Load);
  rules.on_event(DebugEvent::kWriteAio);
  EXPECT_EQ(failure(rules), ENOMEM);
  rules.on_event(DebugEvent::kL2Load);
  EXPECT_EQ(failure(rules), ENOSPC);
}

TEST(BlkdebugRulesTest, TheFirstRuleThatFitsDecides) {
  BlkdebugRules rules;
  rules.add(InjectErrorRule{.errnum = ENOSPC, .io = kBlkdebugWrite});
  rules.add(InjectErrorRule{.errnum = ENOMEM});
  rules.add(InjectErrorRule{.errnum = EPERM});
  rules.on_event(DebugEvent::kNone);
  EXPECT_EQ(failure(rules, kBlkdebugWrite), ENOSPC);
  EXPECT_EQ(failure(rules, kBlkdebugRead), ENOMEM);
  EXPECT_EQ(failure(rules, kBlkdebugBlockStatus), 0) << "only where a rule says so";
}

TEST(BlkdebugRulesTest, OnceMeansOnceAndForGood) {
  BlkdebugRules rules;
  rules.add(InjectErrorRule{.event = DebugEvent::kL2Load, .errnum = ENOSPC, .once = true});
  rules.add(InjectErrorRule{.event = DebugEvent::kL2Load, .errnum = ENOMEM});
  rules.on_event(DebugEvent::kL2Load);
  EXPECT_EQ(failure(rules), ENOSPC);
  EXPECT_EQ(failure(rules), ENOMEM);
  rules.on_event(DebugEvent::kL2Load);
  EXPECT_EQ(failure(rules), ENOMEM);
}

TEST(BlkdebugRulesTest, ARuleForAByteNeedsARequestThatTouchesIt) {
  BlkdebugRules rules;
  rules.add(InjectErrorRule{.offset = 512});
  rules.on_event(DebugEvent::kNone);
  EXPECT_EQ(failure(rules, kBlkdebugRead, 0), 0);
  EXPECT_EQ(failure(rules, kBlkdebugRead, 1), EIO);
  EXPECT_EQ(failure(rules, kBlkdebugRead, 512), EIO);
  EXPECT_EQ(failure(rules, kBlkdebugRead, 513), 0);
  EXPECT_FALSE(rules.find_failure(kBlkdebugFlush, 0, 0));
  EXPECT_TRUE(rules.find_failure(kBlkdebugRead, 0, UINT64_MAX));
}

TEST(BlkdebugRulesTest, StatesChangeBehindAllRulesOfTheEvent) {
  BlkdebugRules rules;
  rules.add(SetStateRule{.event = DebugEvent::kReadAio, .state = 1, .new_state = 2});
  rules.add(SetStateRule{.event = DebugEvent::kReadAio, .state = 2, .new_state = 3});
  rules.add(InjectErrorRule{.event = DebugEvent::kReadAio, .state = 2, .once = true});
  rules.on_event(DebugEvent::kReadAio);
  EXPECT_EQ(rules.state(), 2U);
  EXPECT_EQ(failure(rules), 0);
  rules.on_event(DebugEvent::kReadAio);
  EXPECT_EQ(rules.state(), 3U);
  EXPECT_EQ(failure(rules), EIO);
  rules.on_event(DebugEvent::kReadAio);
  EXPECT_EQ(rules.state(), 3U);
}

TEST(BlkdebugRulesTest, AnErrnoOfZeroFailsNothingButUsesTheRuleUp) {
  BlkdebugRules rules;
  rules.add(InjectErrorRule{.errnum = 0, .once = true});
  rules.add(InjectErrorRule{.errnum = EPERM});
  rules.on_event(DebugEvent::kNone);
  EXPECT_EQ(failure(rules), 0);
  EXPECT_EQ(failure(rules), EPERM);
}

TEST(DebugEventTest, NamesLeadToTheirEvents) {
  for (int i = 0; i <= static_cast<int>(DebugEvent::kNone); ++i) {
    const auto event = static_cast<DebugEvent>(i);
    EXPECT_EQ(find_debug_event(debug_event_name(event)), event) << i;
  }
  EXPECT_EQ(debug_event_name(DebugEvent::kPwritevRmwAfterTail), "pwritev_rmw_after_tail");
  EXPECT_FALSE(find_debug_event("l2_loa"));
}

}  // namespace
}  // namespace coimg
