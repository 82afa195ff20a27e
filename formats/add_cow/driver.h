// The add-cow driver's entry in the registry.
#pragma once

#include <memory>

#include "block/driver.h"

namespace coimg {

std::unique_ptr<DriverType> make_add_cow_driver_type();

}  // namespace coimg
