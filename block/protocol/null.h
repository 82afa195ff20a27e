// null-co and null-aio: disks that keep nothing, for measuring and testing what is above them.
//
// Options: `size` (1 GiB), `latency-ns`, how long reads, writes and flushes take, and `read-zeroes`: without it reads
// leave the memory as it was. The only name is "null-co://".
#pragma once

#include <memory>

#include "block/driver.h"

namespace coimg {

/// Requests are complete when the call returns.
std::unique_ptr<DriverType> make_null_co_driver_type();
/// Others run before a request is complete.
std::unique_ptr<DriverType> make_null_aio_driver_type();

}  // namespace coimg
