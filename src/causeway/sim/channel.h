// One direction of one connection: messages arrive in order, each after a delay of its own.
#pragma once

#include <deque>
#include <functional>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "causeway/base/random.h"
#include "causeway/sim/scheduler.h"

namespace causeway::sim {

class Channel {
 public:
  // `open_at`: when the network lets something pass, now or later.
  Channel(Scheduler& scheduler, Random& random, absl::Duration delay_max,
          std::function<absl::Time()> open_at);
  // `arrive` runs at the other end; dropped when the channel is destroyed first.
  void Send(absl::AnyInvocable<void() &&> arrive);

 private:
  struct State {
    std::deque<absl::AnyInvocable<void() &&>> queue;
    bool moving = false;
  };
  void Move();
  absl::Duration Delay();

  Scheduler& scheduler_;
  Random& random_;
  const absl::Duration delay_max_;
  const std::function<absl::Time()> open_at_;
  const std::shared_ptr<State> state_;
};

}  // namespace causeway::sim
