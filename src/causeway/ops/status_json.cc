// Turns status values into JSON; ages are in seconds, absent ones null.
#include "causeway/ops/status_json.h"

#include <nlohmann/json.hpp>

#include <map>

namespace causeway::ops {
namespace {

using nlohmann::json;

json Seconds(absl::Duration age) {
  if (age == absl::InfiniteDuration()) return nullptr;
  return absl::ToDoubleSeconds(age);
}

json WorkerJson(const core::WorkerStatus& worker) {
  return {{"id", worker.id.value()},
          {"slice", worker.slice},
          {"alive", worker.alive},
          {"state", worker.state},
          {"why", worker.why},
          {"pid", worker.pid},
          {"host", worker.host},
          {"data_address", worker.data_address},
          {"platform", worker.platform},
          {"device_kind", worker.device_kind},
          {"runtime_version", worker.runtime_version},
          {"incarnation", worker.incarnation.value()},
          {"node", worker.node},
          {"last_heard_seconds", Seconds(worker.last_heard_age)},
          {"queued_bytes", worker.queued_bytes},
          {"unconfirmed_launches", worker.unconfirmed_launches},
          {"stats", worker.stats},
          {"transfers", worker.transfers},
          {"transfer_fallback", worker.transfer_fallback},
          {"memory", worker.memory}};
}

// Null when there was no failure yet.
json RecoveryJson(const core::RecoveryStatus& recovery) {
  if (recovery.epoch == EpochId(0)) return nullptr;
  return {{"epoch", recovery.epoch.value()},
          {"cause", recovery.cause},
          {"time", absl::ToDoubleSeconds(recovery.begun - absl::UnixEpoch())},
          {"drain_seconds", Seconds(recovery.drain)},
          {"client_seconds", Seconds(recovery.client)},
          {"adopt_seconds", Seconds(recovery.adopt)},
          {"opened_seconds", Seconds(recovery.opened)},
          {"launched_seconds", Seconds(recovery.launched)}};
}

json SessionJson(const core::SessionStatus& session) {
  return {{"id", session.id.value()},     {"peer", session.peer},
          {"age_seconds", Seconds(session.age)}, {"arrays", session.arrays},
          {"buffers", session.buffers},   {"bytes", session.bytes},
          {"executables", session.executables}};
}

}  // namespace

json StatusJson(const core::ClusterStatus& status) {
  const model::ClusterShape& shape = status.shape;
  json workers = json::array();
  for (const core::WorkerStatus& worker : status.workers) workers.push_back(WorkerJson(worker));
  json sessions = json::array();
  for (const core::SessionStatus& session : status.sessions) {
    sessions.push_back(SessionJson(session));
  }
  return {{"shape",
           {{"slices", shape.slices},
            {"hosts_per_slice", shape.hosts_per_slice},
            {"devices_per_host", shape.devices_per_host},
            {"platform", shape.platform},
            {"announce_slices", shape.announce_slices}}},
          {"complete", status.complete},
          {"epoch", status.epoch.value()},
          {"workers", std::move(workers)},
          {"sessions", std::move(sessions)},
          {"recovery", RecoveryJson(status.recovery)},
          {"counters", status.counters},
          {"gauges", status.gauges},
          {"compile_cache",
           {{"directory", status.compile_cache.directory},
            {"max_bytes", status.compile_cache.max_bytes},
            {"last_error", status.compile_cache.last_error}}}};
}

json DevicesJson(const core::ClusterStatus& status) {
  std::map<WorkerId, const core::WorkerStatus*> workers;
  for (const core::WorkerStatus& worker : status.workers) workers[worker.id] = &worker;
  json devices = json::array();
  for (const model::Device& device : status.devices) {
    const core::WorkerStatus* worker = workers[device.worker];
    json entry = {{"id", device.id.value()},
                  {"kind", device.kind},
                  {"worker", device.worker.value()},
                  {"slice", device.slice},
                  {"slice_index", device.slice_index},
                  {"local_ordinal", device.local_ordinal},
                  {"coords", device.coords},
                  {"state", worker == nullptr ? "unknown" : worker->state}};
    // Workers count for the whole process; on a host with one device that is the device's.
    if (worker != nullptr && status.shape.devices_per_host == 1) {
      for (const char* stat : {"buffers", "buffer_bytes"}) {
        auto it = worker->stats.find(stat);
        if (it != worker->stats.end()) entry[stat] = it->second;
      }
    }
    devices.push_back(std::move(entry));
  }
  return {{"devices", std::move(devices)}};
}

json EventsJson(const std::string& log_id, const core::EventBatch& batch) {
  json events = json::array();
  for (const core::ClusterEvent& event : batch.events) {
    events.push_back({{"number", event.number},
                      {"kind", event.kind},
                      {"slice", event.slice < 0 ? json(nullptr) : json(event.slice)},
                      {"worker", event.worker.value() < 0 ? json(nullptr)
                                                          : json(event.worker.value())},
                      {"epoch", event.epoch.value()},
                      {"cause", event.cause},
                      {"time", absl::ToDoubleSeconds(event.time - absl::UnixEpoch())}});
  }
  return {{"log", log_id},
          {"next", batch.next},
          {"missed", batch.missed},
          {"events", std::move(events)}};
}

}  // namespace causeway::ops
