// The thread's hooks, and the lists of marks that the linker gathers.
#include "causeway/base/probes.h"

#include <set>

#include "causeway/base/check.h"

extern "C" {
// Bounds of the sections; null where the program has no mark of a kind.
extern const char* const __start_causeway_reached[] __attribute__((weak));
extern const char* const __stop_causeway_reached[] __attribute__((weak));
extern const char* const __start_causeway_fault_point[] __attribute__((weak));
extern const char* const __stop_causeway_fault_point[] __attribute__((weak));
extern const char* const __start_causeway_planted[] __attribute__((weak));
extern const char* const __stop_causeway_planted[] __attribute__((weak));
}

namespace causeway {
namespace probes_internal {
thread_local SimHooks* current = nullptr;
}  // namespace probes_internal

namespace {

std::vector<std::string> Names(const char* const* begin, const char* const* end) {
  std::set<std::string> names;
  for (const char* const* p = begin; p != nullptr && p != end; ++p) names.insert(*p);
  return {names.begin(), names.end()};
}

}  // namespace

SimScope::SimScope(SimHooks* hooks) {
  CHECK(probes_internal::current == nullptr) << "one simulation a thread at a time";
  probes_internal::current = hooks;
}

SimScope::~SimScope() { probes_internal::current = nullptr; }

std::vector<std::string> ReachedMarks() {
  return Names(__start_causeway_reached, __stop_causeway_reached);
}
std::vector<std::string> FaultPointMarks() {
  return Names(__start_causeway_fault_point, __stop_causeway_fault_point);
}
std::vector<std::string> PlantedMarks() {
  return Names(__start_causeway_planted, __stop_causeway_planted);
}

}  // namespace causeway
