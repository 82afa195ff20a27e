#include "formats/registry.h"

#include "block/protocol/blkdebug.h"
#include "block/protocol/host_file.h"
#include "block/protocol/null.h"
#include "formats/add_cow/driver.h"
#include "formats/qcow2/driver.h"
#include "formats/raw.h"

namespace coimg {

void register_builtin_drivers(DriverRegistry& registry) {
  registry.add(make_file_driver_type());
  registry.add(make_host_device_driver_type());
  registry.add(make_blkdebug_driver_type());
  registry.add(make_null_co_driver_type());
  registry.add(make_null_aio_driver_type());
  registry.add(make_raw_driver_type());
  registry.add(make_qcow2_driver_type());
  registry.add(make_add_cow_driver_type());
}

}  // namespace coimg
