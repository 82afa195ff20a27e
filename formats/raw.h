// Raw images: the file's bytes are the disk's bytes.
#pragma once

#include <memory>

#include "block/driver.h"

namespace coimg {

std::unique_ptr<DriverType> make_raw_driver_type();

}  // namespace coimg
