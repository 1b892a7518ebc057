// Programs that no session holds any more: how many are kept for the next one that compiles the same.
#include <algorithm>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "causeway/base/probes.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {

void Controller::MakeRoomForProgram() {
  size_t count = programs_.size();
  int64_t bytes = 0;
  for (const auto& [key, program] : programs_) {
    if (program != nullptr) bytes += program->bytes();
  }
  const bool all = FAULT_POINT("controller.prune_programs");
  if (count < options_.max_programs && bytes <= options_.max_program_bytes && !all) return;

  absl::flat_hash_set<ProgramId> used;
  for (const auto& [id, session] : sessions_) {
    for (const auto& [handle, executable] : session->executables) {
      if (executable.binding != nullptr) used.insert(executable.binding->program->id);
    }
  }
  std::vector<ProgramRef> spare;
  for (const auto& [key, program] : programs_) {
    if (program != nullptr && program->compiled && !used.contains(program->id)) {
      spare.push_back(program);
    }
  }
  std::sort(spare.begin(), spare.end(), [](const ProgramRef& a, const ProgramRef& b) {
    return a->last_use < b->last_use;
  });
  // A quarter more than needed, so that not every new program looks for room.
  const size_t count_goal = options_.max_programs - (options_.max_programs + 3) / 4;
  const int64_t bytes_goal = options_.max_program_bytes / 4 * 3;
  absl::flat_hash_set<ProgramId> dropped;
  for (const ProgramRef& program : spare) {
    if (count <= count_goal && bytes <= bytes_goal && !all) break;
    dropped.insert(program->id);
    --count;
    bytes -= program->bytes();
  }
  counters_.programs_dropped += dropped.size();
  ForgetPrograms([&dropped](const Program& program) { return dropped.contains(program.id); });
}

void Controller::ForgetPrograms(absl::FunctionRef<bool(const Program&)> spare) {
  for (auto it = bindings_.begin(); it != bindings_.end();) {
    // A slot without a binding is left over from one that could not be made.
    if (it->second != nullptr && !spare(*it->second->program)) {
      ++it;
      continue;
    }
    if (it->second != nullptr) {
      for (WorkerState& worker : workers_) {
        if (worker.bindings.erase(it->second->id) > 0) {
          worker.link->Send(wire::EncodeUnbind(it->second->id));
        }
      }
    }
    it = bindings_.erase(it);
  }
  std::vector<ProgramId> dropped;
  for (auto it = programs_.begin(); it != programs_.end();) {
    const auto current = it++;
    if (current->second == nullptr || !spare(*current->second)) continue;
    dropped.push_back(current->second->id);
    programs_.erase(current);
  }
  std::sort(dropped.begin(), dropped.end());
  for (const ProgramId id : dropped) {
    for (WorkerState& worker : workers_) {
      if (worker.programs.erase(id) > 0) worker.link->Send(wire::EncodeDropProgram(id));
    }
  }
}

}  // namespace causeway::controller
