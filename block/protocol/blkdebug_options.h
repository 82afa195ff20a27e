// What a fault injector is told: options of its node, or the file that names them in sections.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "block/driver.h"
#include "block/options.h"
#include "block/protocol/blkdebug_rules.h"
#include "block/util/result.h"

namespace coimg {

/// Everything but the image.
struct BlkdebugOptions {
  BlkdebugRules rules;
  uint64_t align = 0;  ///< what requests are made of; 0: what the image wants
  // Limits in bytes; 0: none.
  uint64_t max_transfer = 0, opt_write_zero = 0, max_write_zero = 0, opt_discard = 0, max_discard = 0;
  unsigned taken_permissions = 0, unshared_permissions = 0;  ///< more than the user of the node asks for
  bool plain = true;                                         ///< no option was given
};

/// Takes `inject-error.N.*`, `set-state.N.*`, the limits and permissions, and the rules in `config_text`, the text of a
/// configuration file (empty for none). Errors: EINVAL with QEMU's words.
Result<BlkdebugOptions> take_blkdebug_options(Options& options, std::string_view config_text);

/// Splits "blkdebug:CONFIG:IMAGE" into the options `config` and `x-image`; CONFIG may be empty. A name without the
/// scheme is the image's.
Result<void> parse_blkdebug_name(std::string_view name, Options& options);

}  // namespace coimg
