// Messages between the controller and one life of a worker.
#include "causeway/sim/link.h"

#include <utility>
#include <variant>

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
      home_(process->home()),
      outbox_(OutboxLimits(world.plan)),
      commands_(world.scheduler, world.random, world.plan.network_max,
                [this] { return world_.HeadOpenAt(home_); }),
      bulk_(world.scheduler, world.random, world.plan.network_max,
            [this] { return world_.HeadOpenAt(home_); }),
      events_(world.scheduler, world.random, world.plan.network_max,
              [this] { return world_.HeadOpenAt(home_); }) {}

void Link::Hello(core::WorkerHello hello) {
  events_.Send([self = shared_from_this(), hello = std::move(hello)] { self->Admit(hello); });
}

void Link::Admit(const core::WorkerHello& hello) {
  said_ = hello.worker;
  absl::StatusOr<core::WorkerAdmission> admission =
      world_.controller->OnAttached(hello, shared_from_this());
  world_.Note("head: worker ", place_, " pid ", hello.pid, " attaches: ",
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
  Pump();
}

void Link::Event(std::string bytes) {
  events_.Send([self = shared_from_this(), bytes = std::move(bytes)] {
    if (self->attached_) {
      self->world_.controller->OnEvent(self->said_, self->incarnation_, bytes);
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
  if (place_ < 0) Welcomed(*command);
  if (world_.trace.on()) {
    world_.Note("head -> worker ", place_, ": ", Describe(*command));
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
  world_.Note("head closes worker ", place_, ": ", reason);
  Lost();
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
  world_.Note("head: worker ", place_, " is detached: ", why);
  const bool news = Lost();
  world_.controller->OnDetached(said_, incarnation_, why);
  if (news) world_.ExpectFilled(place_);
}

void Link::Welcomed(const std::string& command) {
  const auto decoded = worker::DecodeCommand(command);
  if (!decoded.ok() || !std::holds_alternative<worker::Welcome>(*decoded)) return;
  place_ = std::get<worker::Welcome>(*decoded).worker.value();
  world_.WorkerBack(place_, process_.lock());
}

bool Link::Lost() {
  if (place_ < 0 || std::exchange(lost_, true)) return false;
  world_.WorkerLost(place_);
  return true;
}

}  // namespace causeway::sim
