// Making new qcow2 images.
//
// Format: qcow2, section "Create".
#pragma once

#include <string>

#include "block/driver.h"
#include "formats/qcow2/header.h"

namespace coimg::qcow2 {

/// The header that an image with these creation options gets, still without size and tables.
/// Errors: EINVAL with qemu-img's words for what is wrong or contradicts itself; ENOTSUP for features that this program
/// cannot create.
Result<Header> header_for_options(const CreateOptions& options);

/// Writes an empty image into the empty, writable `file`.
///
/// Crash: the header cluster of the empty disk comes first; until the last write the file is a smaller but sound image.
Result<void> create_image(const DriverType& type, BlockNode& file, const CreateOptions& options) coroutine_fn;

}  // namespace coimg::qcow2
