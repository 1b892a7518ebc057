// Delays: mostly short, now and then the longest.
#include "causeway/sim/channel.h"

#include <algorithm>
#include <utility>

namespace causeway::sim {

Channel::Channel(Scheduler& scheduler, Random& random, absl::Duration delay_max,
                 std::function<absl::Time()> open_at)
    : scheduler_(scheduler),
      random_(random),
      delay_max_(delay_max),
      open_at_(std::move(open_at)),
      state_(std::make_shared<State>()) {}

void Channel::Send(absl::AnyInvocable<void() &&> arrive) {
  state_->queue.push_back(std::move(arrive));
  Move();
}

absl::Duration Channel::Delay() {
  const double unit = random_.Unit();
  return delay_max_ * (unit * unit * unit);
}

void Channel::Move() {
  if (state_->moving || state_->queue.empty()) return;
  state_->moving = true;
  const absl::Duration closed = std::max(open_at_() - scheduler_.Now(), absl::ZeroDuration());
  scheduler_.Schedule(closed + Delay(), [this, weak = std::weak_ptr<State>(state_)] {
    const std::shared_ptr<State> state = weak.lock();
    if (state == nullptr) return;
    state->moving = false;
    // The network may have closed while the message was on its way.
    if (open_at_() <= scheduler_.Now()) {
      auto arrive = std::move(state->queue.front());
      state->queue.pop_front();
      std::move(arrive)();
      if (weak.use_count() == 1) return;  // the channel is gone; only `state` holds this
    }
    Move();
  });
}

}  // namespace causeway::sim
