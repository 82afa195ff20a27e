// The I/O engines, and how an AioContext gets its own. Internal to the runtime; users see io.h.
#pragma once

#include <memory>

#include "coroutine/io.h"

namespace coimg {

class AioContext;

/// Makes the engine for `context`, in its thread. Called once, when the context first needs one; the engine is
/// destroyed before the context loses its loop, so it may use set_fd_handler() and the hooks until then. Never returns
/// null.
std::unique_ptr<IoEngine> make_io_engine(AioContext& context);

/// System calls on the worker pool. Works in any thread.
std::unique_ptr<IoEngine> make_thread_io_engine();

/// An io_uring of the calling thread, which must be the one of `context`. Null when the kernel refuses one.
std::unique_ptr<IoEngine> make_uring_io_engine(AioContext& context);

}  // namespace coimg
