// Making new qcow2 images, and telling how large they will become.
//
// create_options.cc makes a header of what the user asked for, fresh_layout gives everything its place, create.cc
// writes it.
//
// Format: qcow2, section "Create".
#pragma once

#include <cstdint>
#include <optional>

#include "block/driver.h"
#include "formats/qcow2/header.h"

namespace coimg::qcow2 {

/// The header that an image with these creation options gets, all but the places of its tables.
/// Errors: with qemu-img's words for what is wrong or contradicts itself, in its order; ENOTSUP for features that this
/// program cannot create.
Result<Header> header_for_options(const CreateOptions& options);

/// The part of it that says how large metadata is. Errors: with qemu-img's words for measure.
Result<Header> header_for_measure(const CreateOptions& options);

/// The version that a compatibility level names, in either spelling; nothing for other names.
std::optional<uint32_t> find_version(std::string_view compat);
/// The binary logarithm of the option refcount_bits. Errors: EINVAL for a width that does not exist.
Result<uint32_t> refcount_order_of(const CreateOptions& options);

/// Errors: EINVAL for a mode that does not exist.
Result<Preallocation> preallocation_of(const CreateOptions& options);

/// Writes an empty image into the empty, writable `file`.
/// Crash: until the end the file is no qcow2 image.
Result<void> create_image(BlockNode& file, const CreateOptions& options) coroutine_fn;

/// The sizes of an image with these options for an empty disk of `virtual_size` bytes, or for a copy of `source`.
/// Errors: for the options that have an influence, those of header_for_options() with qemu-img's words for measure;
/// EFBIG for a disk that is too large; those of reading block status.
Result<MeasureResult> measure_image(const CreateOptions& options, uint64_t virtual_size, BlockNode* source)
    coroutine_fn;

}  // namespace coimg::qcow2
