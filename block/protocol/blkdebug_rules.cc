#include "block/protocol/blkdebug_rules.h"

#include <algorithm>
#include <utility>

namespace coimg {

namespace {

bool applies(DebugEvent rule_event, unsigned rule_state, DebugEvent event, unsigned state) {
  return rule_event == event && (rule_state == 0 || rule_state == state);
}

bool fits(const InjectErrorRule& rule, BlkdebugIo io, uint64_t offset, uint64_t bytes) {
  if (!(rule.io & io)) return false;
  return !rule.offset || (*rule.offset >= offset && *rule.offset - offset < bytes);
}

}  // namespace

void BlkdebugRules::on_event(DebugEvent event) {
  std::vector<Errors::iterator> armed;
  for (auto rule = errors_.begin(); rule != errors_.end(); ++rule) {
    if (applies(rule->event, rule->state, event, state_)) armed.push_back(rule);
  }
  if (!armed.empty()) in_force_ = std::move(armed);

  unsigned next = state_;
  for (const SetStateRule& rule : transitions_) {
    if (applies(rule.event, rule.state, event, state_)) next = rule.new_state;
  }
  state_ = next;
}

std::optional<BlkdebugRules::Failure> BlkdebugRules::find_failure(BlkdebugIo io, uint64_t offset, uint64_t bytes) {
  const auto found = std::ranges::find_if(in_force_, [&](const auto& rule) { return fits(*rule, io, offset, bytes); });
  if (found == in_force_.end()) return std::nullopt;
  const auto rule = *found;
  const Failure failure{.errnum = rule->errnum, .immediately = rule->immediately};
  if (rule->once) {
    in_force_.erase(found);
    errors_.erase(rule);
  }
  if (failure.errnum <= 0) return std::nullopt;
  return failure;
}

}  // namespace coimg
