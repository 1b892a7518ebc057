// Reading values and waiting for them: nothing is shown before its gate is open.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"
#include "causeway/model/host_copy.h"
#include "causeway/wire/text_array.h"

namespace causeway::controller {
namespace {

absl::StatusOr<absl::Cord> ComposeText(const core::ArraySpec& spec,
                                       const std::vector<std::pair<DeviceId, model::Box>>& parts,
                                       absl::flat_hash_map<DeviceId, absl::Cord>& data) {
  std::vector<std::pair<model::Box, std::string>> texts;
  for (const auto& [device, box] : parts) texts.emplace_back(box, std::string(data[device]));
  ASSIGN_OR_RETURN(std::string joined, wire::JoinText(spec.shape, texts));
  return absl::Cord(std::move(joined));
}

// Puts shards together into one host buffer.
absl::StatusOr<absl::Cord> Compose(const core::ArraySpec& spec,
                                   const std::optional<std::vector<int64_t>>& byte_strides,
                                   const std::vector<std::pair<DeviceId, model::Box>>& parts,
                                   absl::flat_hash_map<DeviceId, absl::Cord>& data) {
  const int64_t element_bytes = model::HostByteWidth(spec.dtype);
  if (element_bytes < 0) return ComposeText(spec, parts, data);
  const std::vector<int64_t> dense = model::DenseStrides(spec.shape, element_bytes);
  for (const auto& [device, box] : parts) {
    const int64_t want = box.num_elements() * element_bytes;
    if (static_cast<int64_t>(data[device].size()) != want) {
      return absl::InternalError(absl::StrCat("a worker sent ", data[device].size(),
                                              " bytes for a shard of ", want, " on device ",
                                              device.value()));
    }
  }
  const bool as_is = !byte_strides.has_value() || *byte_strides == dense;
  if (parts.size() == 1 && as_is && parts[0].second == model::FullBox(spec.shape)) {
    return std::move(data[parts[0].first]);
  }
  const std::vector<int64_t> strides = as_is ? dense : *byte_strides;
  int64_t bytes = model::NumElements(spec.shape) * element_bytes;
  if (!as_is) {
    ASSIGN_OR_RETURN(bytes, model::SpannedBytes(spec.shape, strides, element_bytes));
  }
  std::string out(bytes, '\0');
  std::string flat;
  for (const auto& [device, box] : parts) {
    if (box.empty()) continue;
    absl::CopyCordToString(data[device], &flat);
    const model::Shape dims = box.shape();
    model::CopyStrided(dims, element_bytes, flat.data(), model::DenseStrides(dims, element_bytes),
                       out.data() + model::ByteOffset(box.start, strides), strides);
  }
  return absl::Cord(std::move(out));
}

}  // namespace

absl::StatusOr<std::vector<Controller::Part>> Controller::PartsOf(const Array& array) {
  const core::ArraySpec& spec = array.spec;
  std::vector<Part> parts;
  absl::Status lost;
  for (int i = 0; i < array.num_shards(); ++i) {
    ShardRef shard = array.shard(i);
    ASSIGN_OR_RETURN(model::Box box, spec.sharding->ShardBox(spec.shape, i));
    const bool gone = PartLost(*shard.buffer, topology_.WorkerOf(shard.device));
    if (gone && lost.ok()) {
      lost = PartError(*shard.buffer, topology_.WorkerOf(shard.device));
    }
    auto it =
        std::find_if(parts.begin(), parts.end(), [&](const Part& p) { return p.box == box; });
    if (it == parts.end()) {
      parts.push_back({gone ? ShardRef{} : std::move(shard), std::move(box)});
    } else if (it->shard.buffer == nullptr && !gone) {
      it->shard = std::move(shard);
    }
    if (spec.sharding->fully_replicated() && parts[0].shard.buffer != nullptr) break;
  }
  for (const Part& part : parts) {
    if (part.shard.buffer == nullptr) return lost;
  }
  return parts;
}

void Controller::CopyToHost(SessionId id, ArrayHandle handle,
                            std::optional<std::vector<int64_t>> byte_strides,
                            absl::AnyInvocable<void(absl::StatusOr<absl::Cord>) &&> done) {
  Locked lock(this);
  auto start = [&]() -> absl::Status {
    mu_.AssertHeld();
    ASSIGN_OR_RETURN(Session * session, FindSession(id));
    ASSIGN_OR_RETURN(ArrayRef array, FindLiveArray(*session, handle));
    const core::ArraySpec& spec = array->spec;
    ASSIGN_OR_RETURN(const std::vector<Part> parts, PartsOf(*array));

    struct Reading {
      core::ArraySpec spec;
      std::optional<std::vector<int64_t>> byte_strides;
      std::vector<std::pair<DeviceId, model::Box>> parts;
      core::GateRef gate;
      absl::AnyInvocable<void(absl::StatusOr<absl::Cord>) &&> done;
    };
    auto reading = std::make_shared<Reading>();
    reading->spec = spec;
    reading->byte_strides = std::move(byte_strides);
    std::vector<core::GateRef> gates;
    for (const Part& part : parts) {
      reading->parts.emplace_back(part.shard.device, part.box);
      gates.push_back(part.shard.buffer->gate);
    }
    reading->gate = core::Gate::Join(gates);
    reading->done = std::move(done);
    ++counters_.fetches;
    const RequestId request = NewRequest([this, reading](PendingRequest& reply) {
      mu_.AssertHeld();
      // The gate's cause is the first one; a worker's own error may only be a consequence.
      auto data = std::make_shared<absl::flat_hash_map<DeviceId, absl::Cord>>(
          std::move(reply.data));
      auto finish = [this, reading, status = reply.status, data](const absl::Status& gate) {
        mu_.AssertHeld();
        const absl::Status error = !gate.ok() ? gate : status;
        for (const auto& [device, cord] : *data) counters_.download_bytes += cord.size();
        Defer([reading, error, data]() mutable {
          if (!error.ok()) {
            std::move(reading->done)(error);
            return;
          }
          std::move(reading->done)(
              Compose(reading->spec, reading->byte_strides, reading->parts, *data));
        });
      };
      if (reading->gate == nullptr) {
        finish(absl::OkStatus());
      } else {
        reading->gate->OnSettled(std::move(finish));
      }
    });
    // One question a buffer and worker.
    std::vector<bool> asked(parts.size(), false);
    for (size_t i = 0; i < parts.size(); ++i) {
      if (asked[i]) continue;
      const WorkerId worker = topology_.WorkerOf(parts[i].shard.device);
      std::vector<DeviceId> devices;
      for (size_t j = i; j < parts.size(); ++j) {
        if (!asked[j] && parts[j].shard.buffer == parts[i].shard.buffer &&
            topology_.WorkerOf(parts[j].shard.device) == worker) {
          asked[j] = true;
          devices.push_back(parts[j].shard.device);
        }
      }
      if (Expect(request, worker)) {
        State(worker).link->Send(wire::EncodeFetch(request, parts[i].shard.buffer->id, devices));
      }
    }
    Seal(request);
    return absl::OkStatus();
  };
  const absl::Status status = start();
  if (!status.ok()) {
    Defer([done = std::move(done), status]() mutable { std::move(done)(status); });
  }
}

void Controller::AwaitReady(SessionId id, const std::vector<ArrayHandle>& handles,
                            core::StatusCallback done) {
  Locked lock(this);
  absl::Status first;
  std::vector<core::GateRef> gates;
  std::map<WorkerId, std::vector<BufferRef>> questions;
  absl::StatusOr<Session*> session = FindSession(id);
  if (!session.ok()) first = session.status();
  if (session.ok()) {
    (*session)->awaited = true;
    for (ArrayHandle handle : handles) {
      absl::StatusOr<ArrayRef> array = FindLiveArray(**session, handle);
      absl::Status status = array.status();
      if (status.ok()) status = CheckLoss(**array);
      // Uncommitted work of a lost slice has a better story to tell: its gate's.
      if (array.ok()) gates.push_back(GateOf(**array));
      if (!status.ok()) {
        if (first.ok()) first = status;
        continue;
      }
      const Array& a = **array;
      if (a.whole != nullptr) {
        if (a.whole->ready_with_gate) continue;
        for (const DeviceList::Member& member : a.list->members) {
          questions[member.worker].push_back(a.whole);
        }
        continue;
      }
      for (const ShardRef& shard : a.parts) {
        if (shard.buffer->ready_with_gate) continue;
        std::vector<BufferRef>& list = questions[topology_.WorkerOf(shard.device)];
        if (list.empty() || list.back() != shard.buffer) list.push_back(shard.buffer);
      }
    }
  }
  auto shared_done = std::make_shared<core::StatusCallback>(std::move(done));
  auto gate = core::Gate::Join(gates);
  const RequestId request =
      NewRequest([this, shared_done, gate, first](PendingRequest& reply) {
        mu_.AssertHeld();
        auto finish = [this, shared_done, first,
                       status = reply.status](const absl::Status& cause) {
          mu_.AssertHeld();
          absl::Status result = cause;
          if (result.ok()) result = first;
          if (result.ok()) result = status;
          Defer([shared_done, result]() mutable { std::move(*shared_done)(result); });
        };
        if (gate == nullptr) {
          finish(absl::OkStatus());
        } else {
          gate->OnSettled(std::move(finish));
        }
      });
  for (const auto& [worker, buffers] : questions) {
    ++counters_.ready_questions;
    if (!Expect(request, worker)) continue;
    std::vector<BufferId> ids;
    for (const BufferRef& buffer : buffers) ids.push_back(buffer->id);
    // Its answer is then that buffer's own.
    if (buffers.size() == 1) requests_.at(request).asked.emplace_back(worker, buffers[0]);
    State(worker).link->Send(wire::EncodeAwaitReady(request, ids));
  }
  Seal(request);
}

}  // namespace causeway::controller
