// What workers report: replies, bytes, launches, epochs, heartbeats.
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "causeway/base/log.h"
#include "causeway/base/probes.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {

void Controller::OnEvent(WorkerId, Incarnation incarnation, absl::string_view bytes) {
  absl::StatusOr<wire::Event> event = wire::DecodeEvent(bytes);
  Locked lock(this);
  WorkerState* const worker = Living(incarnation);
  if (worker == nullptr) {
    REACHED("controller.event_of_a_lost_life");
    if (event.ok()) SpareEvent(incarnation, *event);
    return;
  }
  if (!event.ok()) {
    LOG(ERROR) << "worker " << worker->id << ": " << event.status().message();
    worker->link->Close(event.status().message());
    return;
  }
  worker->pulse.Heard(clock_.Now());
  Handle(*worker, *std::move(event));
}

void Controller::Handle(WorkerState& worker, wire::Event event) {
  if (auto* reply = std::get_if<wire::ReplyEvent>(&event)) {
    auto due = worker.requests.find(reply->request);
    if (due == worker.requests.end()) return;
    if (--due->second == 0) worker.requests.erase(due);
    auto it = requests_.find(reply->request);
    if (it == requests_.end()) return;
    if (reply->compile.has_value()) {
      it->second.compile = std::move(reply->compile);
      it->second.compile_bytes = std::move(reply->compile_bytes);
    }
    if (!reply->text.empty()) it->second.text = std::move(reply->text);
    if (!reply->numbers.empty()) it->second.numbers = std::move(reply->numbers);
    if (absl::IsDataLoss(reply->status)) NoteLostPart(it->second, worker.id, reply->status);
    Replied(reply->request, reply->status);
  } else if (auto* data = std::get_if<wire::FetchDataEvent>(&event)) {
    auto it = requests_.find(data->request);
    if (it != requests_.end()) it->second.data[data->device].Append(std::move(data->bytes));
  } else if (auto* launched = std::get_if<wire::LaunchDoneEvent>(&event)) {
    epochs_.Confirmed(worker.id, launched->epoch, launched->seq, clock_.Now());
  } else if (auto* failed = std::get_if<wire::LaunchFailedEvent>(&event)) {
    epochs_.LaunchFailed(worker.id, failed->epoch, failed->status, failed->peer_failure,
                         clock_.Now());
  } else if (auto* arrived = std::get_if<wire::AtRendezvousEvent>(&event)) {
    epochs_.AtRendezvous(worker.id, arrived->epoch, arrived->seq);
  } else if (auto* opened = std::get_if<wire::EpochOpenedEvent>(&event)) {
    auto micros = [](uint64_t n) { return absl::Microseconds(static_cast<int64_t>(n)); };
    const core::Epochs::OpenTimes times{micros(opened->drain_us), micros(opened->client_us),
                                        micros(opened->adopt_us)};
    LOG(INFO) << "worker " << worker.id << (opened->status.ok() ? " is" : " cannot be")
              << " in epoch " << opened->epoch << " (drained in " << opened->drain_us
              << " us, client in " << opened->client_us << " us, adopted "
              << opened->adopted_buffers << " buffers in " << opened->adopt_us << " us)";
    epochs_.Opened(worker.id, opened->epoch, opened->status, times, clock_.Now());
  } else if (auto* pong = std::get_if<wire::PongEvent>(&event)) {
    worker.pulse.Answered(pong->number, clock_.Now());
    worker.last_heard = clock_.WallNow();
    worker.stats = std::move(pong->stats);
    wire::LaunchProgress& progress = pong->progress;
    epochs_.Reported(worker.id, {progress.epoch, progress.admitted, progress.waiting,
                                 std::move(progress.waits_for)});
    worker.transfers = std::move(pong->transfers);
    worker.transfer_fallback = std::move(pong->transfer_fallback);
  } else if (auto* lost = std::get_if<wire::TransferFailedEvent>(&event)) {
    TransferFailed(worker, *lost);
  }
}

void Controller::TransferFailed(const WorkerState& from, const wire::TransferFailedEvent& lost) {
  ++counters_.transfers_failed;
  if (lost.to.value() < 0 || lost.to.value() >= static_cast<int32_t>(workers_.size())) return;
  WorkerState& to = State(lost.to);
  if (!to.alive) return;
  to.link->Send(wire::EncodeFailTransfer(
      lost.transfer,
      absl::Status(absl::IsResourceExhausted(lost.status) ? absl::StatusCode::kResourceExhausted
                                                          : absl::StatusCode::kDataLoss,
                   absl::StrCat("bytes from worker ", from.id.value(), " (pid ", from.hello.pid,
                                " on ", from.hello.host, ") did not get through to worker ",
                                to.id.value(), ": ", lost.status.message(),
                                "; make the array again"))));
}

}  // namespace causeway::controller
