// What the processor can do beyond what the program is built for.
//
// Code for it is chosen by hand, as target_clones needs ifunc, which neither static musl programs nor sanitizers get
// along with: a function is written once, always_inline, and wrapped into one with [[gnu::target]] and one without.
#pragma once

namespace coimg {

inline bool processor_has_avx2() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2");
#else
  return false;
#endif
}

}  // namespace coimg

/// Marks the function for processors with AVX2; where there are none it is like any other.
#if defined(__x86_64__)
#define COIMG_AVX2 [[gnu::target("avx2")]]
#else
#define COIMG_AVX2
#endif
