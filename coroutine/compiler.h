// Compiler differences in one spelling: sanitizers, and access to thread-local state from coroutines.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define COIMG_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define COIMG_ASAN 1
#endif
#endif

#if defined(__SANITIZE_THREAD__)
#define COIMG_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define COIMG_TSAN 1
#endif
#endif

#ifndef COIMG_ASAN
#define COIMG_ASAN 0
#endif
#ifndef COIMG_TSAN
#define COIMG_TSAN 0
#endif

// Code with a sanitizer and a runtime without it, or the reverse, would disagree about what a coroutine is made of and
// switch stacks behind the sanitizer's back. So each file that uses the runtime needs the symbol that says how it was
// built: linking fails where they differ. Costs a pointer a file.
#if COIMG_ASAN
#define COIMG_RUNTIME_BUILD coimg_runtime_built_with_asan
#elif COIMG_TSAN
#define COIMG_RUNTIME_BUILD coimg_runtime_built_with_tsan
#else
#define COIMG_RUNTIME_BUILD coimg_runtime_built_without_asan_and_tsan
#endif
extern "C" const char COIMG_RUNTIME_BUILD;
namespace coimg {
[[gnu::used]] static const char* const runtime_build = &COIMG_RUNTIME_BUILD;
}  // namespace coimg

// A function that must find the thread-local variables of the thread it is called on. Neither it nor what the compiler
// knows about it may move into a caller: a coroutine can change threads between two calls, also under LTO.
#if defined(__GNUC__) && !defined(__clang__)
#define COIMG_THREAD_LOCAL_ACCESSOR __attribute__((noipa))
#else
#define COIMG_THREAD_LOCAL_ACCESSOR __attribute__((noinline, optnone))
#endif
