// The host file protocol: regular files, block devices and character devices of this machine.
//
// host_file_driver.h has the state of an open file; host_file.cc moves data, host_file_space.cc changes what the file
// occupies, host_file_holes.h knows its holes, file_locks.h its locks; host_file_open.cc opens and creates.
#pragma once

#include <memory>

#include "block/driver.h"

namespace coimg {

/// The protocol `file`: any of the three kinds. It is what a plain path means.
std::unique_ptr<DriverType> make_file_driver_type();

/// The protocol `host_device`: the same for devices only.
std::unique_ptr<DriverType> make_host_device_driver_type();

}  // namespace coimg
