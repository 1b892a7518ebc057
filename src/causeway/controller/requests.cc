// Questions to workers and the callbacks that wait for their answers.
#include <utility>

#include "causeway/controller/controller.h"

namespace causeway::controller {

void Controller::Defer(absl::AnyInvocable<void() &&> callback) {
  deferred_.push_back(std::move(callback));
}

RequestId Controller::NewRequest(absl::AnyInvocable<void(PendingRequest&)> done) {
  const RequestId id(next_id_++);
  PendingRequest& request = requests_[id];
  request.replies_due = 1;  // taken back by Seal
  request.done = std::move(done);
  return id;
}

bool Controller::Expect(RequestId id, WorkerId worker_id) {
  WorkerState& worker = State(worker_id);
  PendingRequest& request = requests_[id];
  if (!worker.alive) {
    if (request.status.ok()) request.status = LostError(worker_id);
    return false;
  }
  ++request.replies_due;
  ++worker.requests[id];
  return true;
}

void Controller::Seal(RequestId id) { Replied(id, absl::OkStatus()); }

void Controller::Replied(RequestId id, const absl::Status& status) {
  auto it = requests_.find(id);
  if (it == requests_.end()) return;
  if (it->second.status.ok() && !status.ok()) it->second.status = status;
  if (--it->second.replies_due > 0) return;
  PendingRequest request = std::move(it->second);
  requests_.erase(it);
  request.done(request);
}

}  // namespace causeway::controller
