// The threads that are kept back, and the three calls by which they are known.
#include "causeway/device/held_threads.h"

#include <dlfcn.h>

#include <atomic>
#include <cstring>
#include <ctime>
#include <map>
#include <memory>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "causeway/base/clock.h"
#include "causeway/base/log.h"
#include "causeway/base/timers.h"
#include "causeway/device/call_slots.h"
#include "causeway/device/stuck_waits.h"

namespace causeway::device {
namespace {

constexpr char kPool[] = "tf_XLAEigen";
// A thread is named by the one that makes it, right afterwards.
constexpr absl::Duration kUntilNamed = absl::Seconds(1);

// Of one thread that was made in a scope. Ends with the thread's beginning.
struct NewThread {
  void* (*routine)(void*);
  void* argument;
  pthread_t id{};
  pthread_t maker{};
  int pool = 0;  // 0: none
  enum class Fate { kUnknown, kRuns, kWaits } fate = Fate::kUnknown;
};

// Never destroyed: threads live as long as the process.
struct Table {
  absl::Mutex mu;
  std::vector<NewThread*> threads ABSL_GUARDED_BY(mu);
  // By pool, all of its threads, until the first is joined.
  std::map<int, std::vector<pthread_t>> pools ABSL_GUARDED_BY(mu);
  int last_pool ABSL_GUARDED_BY(mu) = 0;

  NewThread* Find(pthread_t id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const auto found = absl::c_find_if(
        threads, [id](const NewThread* t) { return ::pthread_equal(t->id, id) != 0; });
    return found == threads.end() ? nullptr : *found;
  }
};

Table& Threads() {
  static auto* const table = new Table;
  return *table;
}

std::atomic<int> kept_back{0};

struct Scope {
  int running = 0;  // 0: none
  int pool = 0;     // 0: no thread of it so far
};
thread_local Scope scope;

void SetFate(NewThread& thread, NewThread::Fate fate) {
  if (thread.fate == NewThread::Fate::kWaits) --kept_back;
  if (fate == NewThread::Fate::kWaits) ++kept_back;
  thread.fate = fate;
}

void* Begin(void* context) {
  const std::unique_ptr<NewThread> self(static_cast<NewThread*>(context));
  Table& table = Threads();
  {
    absl::MutexLock lock(&table.mu);
    const auto known = [&] { return self->fate != NewThread::Fate::kUnknown; };
    const auto runs = [&] { return self->fate == NewThread::Fate::kRuns; };
    if (!table.mu.AwaitWithTimeout(absl::Condition(&known), kUntilNamed)) {
      SetFate(*self, NewThread::Fate::kRuns);
    }
    table.mu.Await(absl::Condition(&runs));
    std::erase(table.threads, self.get());
  }
  return self->routine(self->argument);
}

// What the system has, also where this is a part of the library whose calls are replaced.
template <typename Function>
Function* System(const char* name, Function*) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_DEFAULT, name));
}

const auto system_create = System("pthread_create", &::pthread_create);
const auto system_set_name = System("pthread_setname_np", &::pthread_setname_np);
const auto system_join = System("pthread_join", &::pthread_join);

// What the library calls in place of the system's.

int PthreadCreate(pthread_t* thread, const pthread_attr_t* attributes, void* (*routine)(void*),
                  void* argument) {
  if (scope.running == 0) return system_create(thread, attributes, routine, argument);
  auto made = std::make_unique<NewThread>(
      NewThread{.routine = routine, .argument = argument, .maker = ::pthread_self()});
  Table& table = Threads();
  absl::MutexLock lock(&table.mu);
  const int error = system_create(&made->id, attributes, &Begin, made.get());
  if (error != 0) return error;
  *thread = made->id;
  table.threads.push_back(made.release());
  return 0;
}

int PthreadSetName(pthread_t thread, const char* name) {
  if (scope.running > 0) {
    Table& table = Threads();
    absl::MutexLock lock(&table.mu);
    if (NewThread* found = table.Find(thread); found != nullptr) {
      bool waits = false;
      if (std::strcmp(name, kPool) == 0) {
        if (scope.pool == 0) scope.pool = ++table.last_pool;
        std::vector<pthread_t>& pool = table.pools[scope.pool];
        pool.push_back(thread);
        found->pool = scope.pool;
        waits = static_cast<int>(pool.size()) > scope.running;
      }
      SetFate(*found, waits ? NewThread::Fate::kWaits : NewThread::Fate::kRuns);
    }
  }
  return system_set_name(thread, name);
}

int PthreadJoin(pthread_t thread, void** result) {
  {
    Table& table = Threads();
    absl::MutexLock lock(&table.mu);
    const auto is_it = [thread](pthread_t id) { return ::pthread_equal(id, thread) != 0; };
    const auto pool = absl::c_find_if(
        table.pools, [&](const auto& entry) { return absl::c_any_of(entry.second, is_it); });
    if (pool != table.pools.end()) {
      // A pool ends when all of its threads have nothing to do, which takes all of them.
      for (NewThread* other : table.threads) {
        if (other->pool == pool->first) SetFate(*other, NewThread::Fate::kRuns);
      }
      table.pools.erase(pool);
    }
  }
  return system_join(thread, result);
}

// Of all threads of this process.
absl::Duration ProcessorTime() {
  timespec spent{};
  (void)::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
  return absl::DurationFromTimespec(spent);
}

StuckWaits& Waits() {
  static auto* const waits = new StuckWaits(*new RealClock, *new RealTimers, &ProcessorTime, [] {
    LOG(INFO) << "XLA's threads wait for each other or for others: " << ThreadsKeptBack()
              << " more of them run from now on";
    LetThreadsRun();
  });
  return *waits;
}

}  // namespace

bool KeepThreadsBack(int running, absl::string_view library) {
  if (running > 0) {
    static std::atomic<bool> replaced{false};
    // The one for joining first: who is kept back must be joined with its help.
    replaced = replaced ||
               (ReplaceCalls(library, "pthread_join", reinterpret_cast<void*>(&PthreadJoin)) &&
                ReplaceCalls(library, "pthread_setname_np",
                             reinterpret_cast<void*>(&PthreadSetName)) &&
                ReplaceCalls(library, "pthread_create", reinterpret_cast<void*>(&PthreadCreate)));
    scope = {.running = replaced ? running : 0};
    return replaced;
  }
  scope = {};
  Table& table = Threads();
  absl::MutexLock lock(&table.mu);
  for (NewThread* thread : table.threads) {
    if (thread->fate == NewThread::Fate::kUnknown &&
        ::pthread_equal(thread->maker, ::pthread_self()) != 0) {
      SetFate(*thread, NewThread::Fate::kRuns);
    }
  }
  return true;
}

int ThreadsKeptBack() { return kept_back; }

void LetThreadsRun() {
  Table& table = Threads();
  absl::MutexLock lock(&table.mu);
  for (NewThread* thread : table.threads) SetFate(*thread, NewThread::Fate::kRuns);
}

XlaWait::XlaWait() {
  if (kept_back > 0) wait_ = Waits().Begin();
}

XlaWait::~XlaWait() {
  if (wait_ != 0) Waits().End(wait_);
}

}  // namespace causeway::device
