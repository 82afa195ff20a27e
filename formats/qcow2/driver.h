// The qcow2 driver's entry in the registry.
#pragma once

#include <memory>

#include "block/driver.h"

namespace coimg {

std::unique_ptr<DriverType> make_qcow2_driver_type();

}  // namespace coimg
