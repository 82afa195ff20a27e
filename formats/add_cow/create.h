// New add-cow images: their options, and how large they become.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "block/driver.h"
#include "block/node.h"
#include "block/options.h"
#include "block/util/result.h"
#include "formats/add_cow/header.h"

namespace coimg::add_cow {

std::vector<CreateOptionSpec> create_option_specs();

/// The header that the options ask for. Errors: what is wrong with them.
Result<Header> header_for_options(const CreateOptions& options);

/// See DriverType. Without a name the image file gets that of the add-cow file with ".img" for ".add-cow"; without a
/// size the disk is as large as an image file that is there; without a format the backing file is probed, and a format
/// that has a magic is taken.
Result<void> complete_create_options(const DriverRegistry& registry, const std::string& filename, bool look_at_files,
                                     CreateOptions& options) coroutine_fn;

/// Where the image file of the image `filename` is.
DataFilePlan image_file_plan(const std::string& filename, const CreateOptions& options);

/// Writes a new image into `file`, which is empty. The image file is there. Crash: the header comes last; without it
/// the file is none of the format.
Result<void> create_image(BlockNode& file, const CreateOptions& options) coroutine_fn;

/// The add-cow file and a raw image file together.
Result<MeasureResult> measure_image(const CreateOptions& options, uint64_t virtual_size);

}  // namespace coimg::add_cow
