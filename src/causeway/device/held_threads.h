// Keeps back the threads of XLA:CPU's pool for the inside of operations that it has too many of.
#pragma once

#include <pthread.h>

#include "absl/strings/string_view.h"

namespace causeway::device {

// XLA:CPU makes two pools of one size: one runs programs, the other parts of an operation. The first
// must be large, for its threads wait for peers and for users' callbacks; the second only takes
// turns with itself where it has more threads than there are processors (a quarter of a training
// step's time with 8 threads on 2). So some of its threads are kept back before they have begun;
// their share of the work is stolen by the others.
//
// Threads that run parts of an operation may wait too, so those that are kept back must be let go
// when all others do: see XlaWait.
//
// Thread safety: thread-safe; a scope belongs to the thread that made it.

// From now on, of the threads of that pool that jaxlib makes on the calling thread, `running` run
// and the others are kept back. 0 ends it. The library must be loaded. Returns whether it makes its
// threads in the way that this needs; if not, all threads run.
bool KeepThreadsBack(int running, absl::string_view library = "libjax_common.so");

// How many are kept back.
int ThreadsKeptBack();
// Lets all of them run, for good.
void LetThreadsRun();

// While one lives, its thread waits for XLA. If nothing moves then, threads that are kept back are
// let go (stuck_waits.h).
class XlaWait {
 public:
  XlaWait();
  ~XlaWait();
  XlaWait(const XlaWait&) = delete;
  XlaWait& operator=(const XlaWait&) = delete;

 private:
  unsigned long wait_ = 0;
};

}  // namespace causeway::device
