#include "coroutine/annotations.h"

namespace coimg {

CoroutineContextCapability coroutine_context;

}  // namespace coimg
