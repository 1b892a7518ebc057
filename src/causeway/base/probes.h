// Marks in production code that a simulation listens to: rare paths, legal trouble, planted bugs.
//
//   REACHED("gate.join_failed");             this path ran; a report shows which never did
//   if (FAULT_POINT("graph.no_room")) ...    trouble that is legal here: made common by a simulation
//   if (PLANTED("ledger.no_fence")) ...      a bug, on in one simulation only, to prove that the
//                                            checks find it
//
// Outside a simulation all three cost one thread-local read and do nothing: hooks are installed by
// SimScope alone, and tools/layering.py lets only sim/ name it. Keep them off the hottest paths.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace causeway {

class SimHooks {
 public:
  virtual ~SimHooks() = default;
  virtual void Reached(const char* name) = 0;
  virtual bool FaultPoint(const char* name) = 0;
  virtual bool Planted(const char* name) = 0;
  // A log entry, in place of standard error.
  virtual void Log(int level, absl::string_view text) = 0;
};

namespace probes_internal {
extern thread_local SimHooks* current;
}  // namespace probes_internal

// The simulation that runs on this thread; null in production.
inline SimHooks* CurrentSimHooks() { return probes_internal::current; }

// Puts hooks under everything that this thread does while the scope lives.
class SimScope {
 public:
  explicit SimScope(SimHooks* hooks);
  ~SimScope();
  SimScope(const SimScope&) = delete;
  SimScope& operator=(const SimScope&) = delete;
};

// Names of all marks that are linked into this program, sorted, each once.
std::vector<std::string> ReachedMarks();
std::vector<std::string> FaultPointMarks();
std::vector<std::string> PlantedMarks();

}  // namespace causeway

// A pointer to each name lies in a section of its own, so that unreached marks can be listed too.
#define CAUSEWAY_MARK(kind, name)                                                       \
  static const char* const causeway_mark_site                                           \
      __attribute__((section("causeway_" #kind), used, retain)) = name

#define REACHED(name)                                                                   \
  do {                                                                                  \
    CAUSEWAY_MARK(reached, name);                                                       \
    if (::causeway::CurrentSimHooks() != nullptr) {                                     \
      ::causeway::CurrentSimHooks()->Reached(causeway_mark_site);                       \
    }                                                                                   \
  } while (false)

#define FAULT_POINT(name)                                                               \
  ([]() -> bool {                                                                       \
    CAUSEWAY_MARK(fault_point, name);                                                   \
    return ::causeway::CurrentSimHooks() != nullptr &&                                  \
           ::causeway::CurrentSimHooks()->FaultPoint(causeway_mark_site);               \
  }())

#define PLANTED(name)                                                                   \
  ([]() -> bool {                                                                       \
    CAUSEWAY_MARK(planted, name);                                                       \
    return ::causeway::CurrentSimHooks() != nullptr &&                                  \
           ::causeway::CurrentSimHooks()->Planted(causeway_mark_site);                  \
  }())
