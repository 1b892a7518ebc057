// Messages between the controller and one life of a worker.
#include "causeway/sim/link.h"

#include <utility>

#include "causeway/base/limits.h"
#include "causeway/sim/process.h"
#include "causeway/worker/command_codec.h"

namespace causeway::sim {
namespace {

controller::Outbox::Limits OutboxLimits(const Plan& plan) {
  controller::Outbox::Limits limits;
  limits.chunk_bytes = plan.chunk_bytes;
  if (plan.chunk_bytes < 100) limits.batch_bytes = 100;
  return limits;
}

}  // namespace

Link::Link(World& world, std::shared_ptr<Process> process)
    : world_(world),
      process_(process),
      worker_(process->worker()),
      outbox_(OutboxLimits(world.plan)),
      commands_(world.scheduler, world.random, world.plan.network_max,
                [this] { return world_.HeadOpenAt(worker_); }),
      bulk_(world.scheduler, world.random, world.plan.network_max,
            [this] { return world_.HeadOpenAt(worker_); }),
      events_(world.scheduler, world.random, world.plan.network_max,
              [this] { return world_.HeadOpenAt(worker_); }) {}

void Link::Hello(core::WorkerHello hello) {
  events_.Send([self = shared_from_this(), hello = std::move(hello)] { self->Admit(hello); });
}

void Link::Admit(const core::WorkerHello& hello) {
  absl::StatusOr<core::WorkerAdmission> admission =
      world_.controller->OnAttached(hello, shared_from_this());
  world_.Note("head: worker ", worker_, " pid ", hello.pid, " attaches: ",
              admission.ok() ? absl::StrCat("incarnation ", admission->incarnation.value())
                             : admission.status().ToString());
  if (!admission.ok()) {
    commands_.Send([weak = process_, self = shared_from_this(), status = admission.status()] {
      if (auto p = weak.lock()) p->OnStreamEnd(self.get(), status);
    });
    return;
  }
  admitted_ = attached_ = true;
  incarnation_ = admission->incarnation;
  world_.WorkerBack(worker_);
  Pump();
}

void Link::Event(std::string bytes) {
  events_.Send([self = shared_from_this(), bytes = std::move(bytes)] {
    if (self->attached_) {
      self->world_.controller->OnEvent(WorkerId(self->worker_), self->incarnation_, bytes);
    }
  });
}

void Link::BulkOpened() {
  events_.Send([self = shared_from_this()] {
    self->has_bulk_ = true;
    self->Pump();
  });
}

void Link::Broken() {
  events_.Send([self = shared_from_this()] { self->Detach("its connection was lost"); });
}

void Link::Send(std::shared_ptr<const std::string> command) {
  if (closing_) return;
  if (world_.trace.on()) {
    world_.Note("head -> worker ", worker_, ": ", Describe(*command));
  }
  outbox_.PushCommand(std::move(command));
  Pump();
}

void Link::SendData(TransferId transfer, absl::StatusOr<absl::Cord> bytes) {
  if (closing_) return;
  if (bytes.ok()) {
    outbox_.PushData(transfer, *std::move(bytes));
  } else {
    outbox_.PushDataError(transfer, bytes.status());
  }
  Pump();
}

void Link::Pump() {
  if (!admitted_) return;
  if (!command_in_flight_) {
    controller::Outbox::Batch batch = outbox_.NextForCommands(has_bulk_);
    if (!batch.empty()) {
      command_in_flight_ = true;
      commands_.Send([self = shared_from_this(), batch = std::move(batch)] {
        self->command_in_flight_ = false;
        if (auto p = self->process_.lock()) p->OnCommands(self.get(), batch);
        self->Pump();
      });
    }
  }
  if (has_bulk_ && !bulk_in_flight_) {
    controller::Outbox::Batch batch = outbox_.NextForBulk();
    if (!batch.empty()) {
      bulk_in_flight_ = true;
      bulk_.Send([self = shared_from_this(), batch = std::move(batch)] {
        self->bulk_in_flight_ = false;
        if (auto p = self->process_.lock()) p->OnBulk(batch);
        self->Pump();
      });
    }
  }
}

void Link::Close(absl::string_view reason) {
  if (closing_) return;
  closing_ = true;
  world_.Note("head closes worker ", worker_, ": ", reason);
  if (!std::exchange(lost_, true)) world_.WorkerLost(worker_);
  commands_.Send([weak = process_, self = shared_from_this(), why = std::string(reason)] {
    if (auto p = weak.lock()) p->OnStreamEnd(self.get(), absl::UnavailableError(why));
  });
  // A worker that takes nothing is cut off after a while.
  world_.scheduler.Schedule(
      absl::Milliseconds(limits::kServerGraceMs) * world_.random.Unit(),
      [self = shared_from_this(), why = std::string(reason)] { self->Detach(why); });
}

void Link::Detach(const std::string& why) {
  if (!attached_) return;
  attached_ = false;
  closing_ = true;
  world_.Note("head: worker ", worker_, " is detached: ", why);
  if (!std::exchange(lost_, true)) world_.WorkerLost(worker_);
  world_.controller->OnDetached(WorkerId(worker_), incarnation_, why);
}

}  // namespace causeway::sim
