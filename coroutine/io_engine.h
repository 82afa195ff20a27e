// How an AioContext gets its I/O engine. Internal to the runtime; users see io.h.
#pragma once

#include <memory>

#include "coroutine/io.h"

namespace coimg {

class AioContext;

/// Makes the engine for `context`, in its thread. Called once, when the context first needs one; the engine is
/// destroyed before the context loses its loop, so it may use set_fd_handler() and the hooks until then. Never returns
/// null.
std::unique_ptr<IoEngine> make_io_engine(AioContext& context);

}  // namespace coimg
