// What operations see of the controller.
#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {

core::ClusterStatus Controller::GetStatus() {
  Locked lock(this);
  const absl::Time now = clock_.WallNow();
  core::ClusterStatus out;
  out.shape = options_.shape;
  out.epoch = epochs_.epoch();
  out.complete = epochs_.complete();
  for (const WorkerState& worker : workers_) {
    core::WorkerStatus w;
    w.id = worker.id;
    w.slice = topology_.SliceOf(worker.id);
    w.alive = worker.alive;
    w.state = worker.alive ? (epochs_.in(worker.id) ? "alive" : "joining")
                           : (worker.hello.pid == 0 ? "waiting" : "lost");
    if (!worker.alive) w.why = worker.lost_why;
    w.pid = worker.hello.pid;
    w.host = worker.hello.host;
    w.data_address = worker.hello.data_address;
    w.platform = worker.hello.platform;
    w.device_kind = worker.hello.device_kind;
    w.runtime_version = worker.hello.runtime_version;
    w.incarnation = worker.incarnation;
    w.node = epochs_.node(worker.id);
    if (worker.hello.pid != 0) w.last_heard_age = now - std::max(worker.last_heard, worker.changed);
    if (worker.alive) w.queued_bytes = worker.link->queued_bytes();
    w.unconfirmed_launches = epochs_.unconfirmed(worker.id);
    w.stats = worker.stats;
    w.transfers = worker.transfers;
    w.transfer_fallback = worker.transfer_fallback;
    w.memory = worker.hello.memory;
    out.workers.push_back(std::move(w));
  }
  out.devices = topology_.devices();
  for (const auto& [id, session] : sessions_) {
    core::SessionStatus s;
    s.id = id;
    s.peer = session->peer;
    s.age = now - session->opened;
    s.arrays = static_cast<int64_t>(session->arrays.size());
    s.executables = static_cast<int64_t>(session->executables.size());
    absl::flat_hash_set<BufferId> seen;
    for (const auto& [handle, array] : session->arrays) {
      auto count = [&](const Buffer& buffer) {
        if (seen.insert(buffer.id).second) s.bytes += buffer.bytes;
      };
      if (array->whole != nullptr) count(*array->whole);
      for (const ShardRef& shard : array->parts) count(*shard.buffer);
    }
    s.buffers = static_cast<int64_t>(seen.size());
    out.sessions.push_back(std::move(s));
  }
  std::sort(out.sessions.begin(), out.sessions.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });
  out.counters = {
      {"launches_total", counters_.launches},
      {"gang_launches_total", counters_.gang_launches},
      {"compiles_total", counters_.compiles},
      {"compile_cache_hits_total", counters_.compile_hits},
      {"compile_cache_dropped_total", counters_.programs_dropped},
      {"program_loads_total", counters_.program_loads},
      {"ready_questions_total", counters_.ready_questions},
      {"fetches_total", counters_.fetches},
      {"epoch_changes_total", counters_.epoch_changes},
      {"workers_lost_total", counters_.workers_lost},
      {"transfers_total", counters_.transfers},
      {"transfers_failed_total", counters_.transfers_failed},
      {"transfer_plans_total", reshard_plans_.made()},
      {"transfer_plans_reused_total", reshard_plans_.reused()},
      {"upload_bytes_total", counters_.upload_bytes},
      {"download_bytes_total", counters_.download_bytes},
      {"buffers_freed_total", counters_.buffers_freed},
  };
  out.recovery = epochs_.recovery();
  out.recovery.begun = recovery_begun_;
  out.gauges = {
      {"buffers", live_buffers_},
      {"buffer_bytes", live_bytes_},
      {"pending_requests", static_cast<int64_t>(requests_.size())},
      {"spares", static_cast<int64_t>(spares_.size())},
  };
  if (options_.compile_cache != nullptr) {
    core::CompileCacheStatus disk = options_.compile_cache->Status();
    out.counters.insert({{"disk_cache_hits_total", disk.hits},
                         {"disk_cache_misses_total", disk.misses},
                         {"disk_cache_stored_total", disk.stored},
                         {"disk_cache_evicted_total", disk.evicted},
                         {"disk_cache_dropped_total", disk.dropped},
                         {"disk_cache_errors_total", disk.errors}});
    out.gauges.insert({{"disk_cache_files", disk.files},
                       {"disk_cache_bytes", disk.bytes},
                       {"disk_cache_max_bytes", disk.max_bytes}});
    out.compile_cache = std::move(disk);
  }
  return out;
}

}  // namespace causeway::controller
