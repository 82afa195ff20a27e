// The drivers of this program.
#pragma once

#include "block/driver.h"

namespace coimg {

/// Adds all formats and protocols. A new one needs a line in registry.cc and nothing else.
void register_builtin_drivers(DriverRegistry& registry);

}  // namespace coimg
