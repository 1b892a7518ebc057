// Spare workers: attached, started, without a place until one is lost.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "causeway/base/probes.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"

namespace causeway::controller {

absl::Status Controller::TakeSpare(Spare spare) {
  // The place that it would rather have, then any that was lost. Places that nobody has taken yet
  // are left to those who come for them.
  WorkerState* place = nullptr;
  const int32_t wish = spare.hello.worker.value();
  if (wish >= 0 && wish < static_cast<int32_t>(workers_.size()) && !workers_[wish].alive) {
    place = &workers_[wish];
  }
  for (WorkerState& worker : workers_) {
    if (place == nullptr && !worker.alive && worker.hello.pid != 0) place = &worker;
  }
  if (place != nullptr) return FillPlace(*place, spare);
  if (spares_.size() >= limits::kSparesMax) {
    return absl::FailedPreconditionError(
        absl::StrCat("this cluster has ", spares_.size(), " spares, it takes no more"));
  }
  NoteSpare(spare, nullptr, "waits for a place");
  spare.pulse = core::Pulse(options_.heartbeat, options_.missed_beats_max, clock_.Now());
  spares_.push_back(std::move(spare));
  return absl::OkStatus();
}

absl::Status Controller::FillPlace(WorkerState& place, Spare& spare) {
  RETURN_IF_ERROR(Join(place, spare.hello, spare.link, spare.admission));
  if (spare.hello.worker != place.id) {
    NoteSpare(spare, &place, absl::StrCat("takes the place of worker ", place.id.value()));
  }
  return absl::OkStatus();
}

void Controller::FillFromSpares(WorkerState& place) {
  if (spares_.empty() || PLANTED("controller.spare_stays_idle")) return;
  Spare spare = std::move(spares_.front());
  spares_.erase(spares_.begin());
  const absl::Status filled = FillPlace(place, spare);
  if (filled.ok()) return;
  LOG(ERROR) << "the place of worker " << place.id << " stays empty: " << filled.message();
  spares_.push_back(std::move(spare));
}

void Controller::NoteSpare(const Spare& spare, const WorkerState* place,
                           const std::string& what) {
  const std::string cause =
      absl::StrCat("the spare with pid ", spare.hello.pid, " on ", spare.hello.host, " ", what);
  LOG(INFO) << cause;
  core::ClusterEvent event;
  event.kind = "spare";
  if (place != nullptr) {
    event.slice = topology_.SliceOf(place->id);
    event.worker = place->id;
  }
  event.epoch = epochs_.epoch();
  event.cause = cause;
  event.time = clock_.WallNow();
  events_.Append(std::move(event));
}

void Controller::SpareEvent(Incarnation incarnation, const wire::Event& event) {
  const auto* pong = std::get_if<wire::PongEvent>(&event);
  if (pong == nullptr) return;
  for (Spare& spare : spares_) {
    if (spare.admission.incarnation != incarnation) continue;
    spare.pulse.Answered(pong->number, clock_.Now());
  }
}

void Controller::SpareGone(Incarnation incarnation, const std::string& why) {
  for (auto it = spares_.begin(); it != spares_.end(); ++it) {
    if (it->admission.incarnation != incarnation) continue;
    NoteSpare(*it, nullptr, absl::StrCat("is gone: ", why));
    spares_.erase(it);
    return;
  }
}

}  // namespace causeway::controller
