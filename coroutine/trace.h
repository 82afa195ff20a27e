// Tracing: a line for each event in the runtime, when the environment asks for it.
//
//     COIMG_TRACE=stderr coimg ...      COIMG_TRACE=/tmp/trace coimg ...
//
//     12.000345 7041 wake coroutine='reader' 0x7f32c81fff00 by='writer'
//
// The fields are seconds of the monotonic clock, the thread, the event and what it is about. Switched off, an event
// costs one branch that is always predicted.
#pragma once

namespace coimg {

class Coroutine;

/// Set before main(), then constant.
extern bool trace_enabled;

/// Writes the line, with one system call so that those of several threads do not mix. `by` may be null.
void write_trace(const char* event, const Coroutine* subject, const char* by);
void write_trace(const char* event, const char* kind, const char* name, const void* subject);

/// Something happened to a coroutine; `by` names who did it.
[[gnu::always_inline]] inline void trace(const char* event, const Coroutine* subject, const char* by = nullptr) {
  if (trace_enabled) [[unlikely]]
    write_trace(event, subject, by);
}

/// Something happened to a `kind` of thing called `name`.
[[gnu::always_inline]] inline void trace(const char* event, const char* kind, const char* name, const void* subject) {
  if (trace_enabled) [[unlikely]]
    write_trace(event, kind, name, subject);
}

}  // namespace coimg
