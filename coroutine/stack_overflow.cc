// Turns a fault in a stack's guard into a message that names the coroutine.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>

#include "coroutine/coroutine_private.h"
#include "coroutine/fatal.h"
#include "coroutine/stack.h"

namespace coimg {
namespace {

struct sigaction previous_action;

/// The alternate signal stack of a thread, if we made it: a handler cannot run on a stack that is used up.
constinit thread_local void* signal_stack = nullptr;

size_t signal_stack_bytes() {
  // sysconf knows how large this processor's vector registers are; SIGSTKSZ is from before they grew.
  return static_cast<size_t>(std::max<long>(::sysconf(_SC_SIGSTKSZ), 64 * 1024));
}

void on_fault(int signal_number, siginfo_t* info, void*) {
  const Coroutine* co = thread_state().current;
  if (co != nullptr && stack_guard_contains(Coroutine::Private::of(co).stack, info->si_addr)) {
    fatal("stack overflow in coroutine '%s' (%zu KiB; see COIMG_STACK_KIB)", co->name(), stack_size_bytes() / 1024);
  }
  // Any other fault: whoever was responsible before gets it, as the instruction runs into it again.
  ::sigaction(signal_number, &previous_action, nullptr);
}

}  // namespace

COIMG_THREAD_LOCAL_ACCESSOR void install_stack_overflow_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    ::sigaction(SIGSEGV, &action, &previous_action);
  });

  stack_t present = {};
  if (::sigaltstack(nullptr, &present) != 0 || (present.ss_flags & SS_DISABLE) == 0) return;  // a sanitizer's will do
  void* memory =
      ::mmap(nullptr, signal_stack_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED) return;  // an overflow then ends the process without a message
  stack_t alternate = {};
  alternate.ss_sp = memory;
  alternate.ss_size = signal_stack_bytes();
  if (::sigaltstack(&alternate, nullptr) != 0) {
    ::munmap(memory, signal_stack_bytes());
    return;
  }
  signal_stack = memory;
}

COIMG_THREAD_LOCAL_ACCESSOR void remove_stack_overflow_handler() {
  if (signal_stack == nullptr) return;
  stack_t disable = {};
  disable.ss_flags = SS_DISABLE;
  ::sigaltstack(&disable, nullptr);
  ::munmap(signal_stack, signal_stack_bytes());
  signal_stack = nullptr;
}

}  // namespace coimg
