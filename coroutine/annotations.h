// Marks that say where code may run and which lock guards which data.
//
// Under Clang they are thread-safety attributes, so `./dev lint` turns a violation into a build error; other
// compilers see nothing. `coroutine_fn` is modelled as a capability that only the coroutine trampoline holds: a
// function that requires it can be called only from functions that require it too.
//
// Placement: behind the parameter list, before `override`; on lambdas before `->`:
//     Result<int> length() const coroutine_fn override;
//     auto job = [&]() coroutine_fn -> int { ... };
#pragma once

#include "coroutine/compiler.h"

#if defined(__clang__)
#define COIMG_TSA(x) __attribute__((x))
#else
#define COIMG_TSA(x)
#endif

namespace coimg {

/// The capability "this code runs inside a coroutine". It has no state; only the analysis knows it.
struct COIMG_TSA(capability("coroutine context")) CoroutineContextCapability {};
extern CoroutineContextCapability coroutine_context;

}  // namespace coimg

/// May run only inside a coroutine; may yield unless its comment says otherwise.
#define coroutine_fn COIMG_TSA(requires_capability(::coimg::coroutine_context))
/// Must not run inside a coroutine: it blocks the thread or runs a nested loop.
#define no_coroutine_fn COIMG_TSA(locks_excluded(::coimg::coroutine_context))
/// Works inside and outside of coroutines. Only documentation: the analysis cannot check it, so keep these few.
#define coroutine_mixed_fn

#define CO_CAPABILITY(name) COIMG_TSA(capability(name))
#define CO_SCOPED_CAPABILITY COIMG_TSA(scoped_lockable)
#define CO_GUARDED_BY(lock) COIMG_TSA(guarded_by(lock))
#define CO_REQUIRES(...) COIMG_TSA(requires_capability(__VA_ARGS__))
#define CO_REQUIRES_SHARED(...) COIMG_TSA(requires_shared_capability(__VA_ARGS__))
#define CO_ACQUIRE(...) COIMG_TSA(acquire_capability(__VA_ARGS__))
#define CO_ACQUIRE_SHARED(...) COIMG_TSA(acquire_shared_capability(__VA_ARGS__))
#define CO_RELEASE(...) COIMG_TSA(release_capability(__VA_ARGS__))
#define CO_RELEASE_SHARED(...) COIMG_TSA(release_shared_capability(__VA_ARGS__))
#define CO_RELEASE_GENERIC(...) COIMG_TSA(release_generic_capability(__VA_ARGS__))
#define CO_TRY_ACQUIRE(...) COIMG_TSA(try_acquire_capability(__VA_ARGS__))
#define CO_TRY_ACQUIRE_SHARED(...) COIMG_TSA(try_acquire_shared_capability(__VA_ARGS__))
#define CO_EXCLUDES(...) COIMG_TSA(locks_excluded(__VA_ARGS__))
#define CO_ASSERT_CAPABILITY(...) COIMG_TSA(assert_capability(__VA_ARGS__))
#define CO_ASSERT_SHARED_CAPABILITY(...) COIMG_TSA(assert_shared_capability(__VA_ARGS__))
#define CO_NO_THREAD_SAFETY_ANALYSIS COIMG_TSA(no_thread_safety_analysis)
