// blkdebug: a protocol that passes requests on to an image, and fails or holds up those that it is told to.
//
//     blkdebug:CONFIG:IMAGE      rules from a file; with CONFIG empty, none
//     driver=blkdebug,image.filename=IMAGE,inject-error.0.event=l2_load,...
//
// Which requests fail is said by rules (blkdebug_rules.h), how they are written in blkdebug_options.h. Requests are
// held up at breakpoints, which programs set while they run (debug_events.h).
#pragma once

#include <memory>

#include "block/driver.h"

namespace coimg {

std::unique_ptr<DriverType> make_blkdebug_driver_type();

}  // namespace coimg
