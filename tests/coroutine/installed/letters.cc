// Two coroutines take turns at a line of text. A third spells it out when it is entered, outside of any loop.
#include <cstdio>
#include <string>

#include "coroutine/co_mutex.h"
#include "coroutine/co_sleep.h"
#include "coroutine/coroutine.h"
#include "coroutine/main_loop.h"

using namespace coimg;

struct Line {
  CoMutex lock;
  std::string text CO_GUARDED_BY(lock);
  int writers = 0;
};

void append_slowly(Line& line, char first) coroutine_fn {
  for (int i = 0; i < 3; ++i) {
    const CoMutexGuard guard(line.lock);
    co_sleep_ns(ClockType::kMonotonic, 1'000'000);  // the other one waits for the lock
    line.text += static_cast<char>(first + i);
  }
  --line.writers;
}

int main() {
  MainLoop::init();
  std::string text;
  run_in_main_loop([&text]() coroutine_fn {
    Line line;
    for (const char first : {'a', 'x'}) {
      ++line.writers;
      Coroutine::create([&line, first]() coroutine_fn { append_slowly(line, first); }, "writer")->enter();
    }
    while (line.writers > 0) co_sleep_ns(ClockType::kMonotonic, 1'000'000);
    const CoMutexGuard guard(line.lock);
    text = line.text;
  });
  size_t next = 0;
  Coroutine* spelling = Coroutine::create([&]() coroutine_fn {
    for (; next < text.size(); ++next) {
      std::putchar(text[next]);
      Coroutine::yield();
    }
    std::putchar('\n');
  });
  for (size_t entered = text.size() + 1; entered > 0; --entered) spelling->enter();
}
