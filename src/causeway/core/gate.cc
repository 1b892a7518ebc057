// Settles gates and what depends on them, without recursion: chains may be thousands long.
#include "causeway/core/gate.h"

#include <utility>

#include "causeway/base/check.h"

namespace causeway::core {

GateRef Gate::Create(int pending) {
  CHECK_GT(pending, 0);
  return GateRef(new Gate(pending));
}

GateRef Gate::OfUpload(int pending) {
  GateRef gate = Create(pending);
  gate->upload_ = true;
  return gate;
}

GateRef Gate::Join(const std::vector<GateRef>& gates) {
  GateRef only;
  bool several = false;
  for (const GateRef& gate : gates) {
    if (gate == nullptr || gate->open() || gate == only) continue;
    if (gate->failed()) return gate;
    if (only != nullptr) several = true;
    only = gate;
  }
  if (!several) return only;
  GateRef join = Create(1);
  for (const GateRef& gate : gates) {
    if (gate == nullptr || gate->open()) continue;
    join->upload_ |= gate->upload_;
    join->After(gate);
  }
  join->Release();
  return join;
}

void Gate::Release() {
  if (state_ != State::kPending) return;
  CHECK_GT(pending_, 0);
  if (--pending_ > 0) return;
  state_ = State::kOpen;
  Propagate(shared_from_this());
}

void Gate::Fail(const absl::Status& cause) {
  CHECK(!cause.ok());
  if (state_ != State::kPending) return;
  state_ = State::kFailed;
  error_ = cause;
  Propagate(shared_from_this());
}

void Gate::After(const GateRef& other) {
  if (other == nullptr || other->open() || settled()) return;
  if (other->failed()) {
    Fail(other->error());
    return;
  }
  ++pending_;
  other->dependents_.push_back(shared_from_this());
}

void Gate::OnSettled(absl::AnyInvocable<void(const absl::Status&) &&> done) {
  if (settled()) {
    std::move(done)(error_);
    return;
  }
  watchers_.push_back(std::move(done));
}

void Gate::Propagate(GateRef first) {
  std::vector<GateRef> settled = {std::move(first)};
  while (!settled.empty()) {
    GateRef gate = std::move(settled.back());
    settled.pop_back();
    auto watchers = std::move(gate->watchers_);
    auto dependents = std::move(gate->dependents_);
    gate->watchers_.clear();
    gate->dependents_.clear();
    for (auto& watcher : watchers) std::move(watcher)(gate->error_);
    for (GateRef& dependent : dependents) {
      if (dependent->settled()) continue;
      if (gate->failed()) {
        dependent->state_ = State::kFailed;
        dependent->error_ = gate->error_;
      } else if (--dependent->pending_ == 0) {
        dependent->state_ = State::kOpen;
      } else {
        continue;
      }
      settled.push_back(std::move(dependent));
    }
  }
}

}  // namespace causeway::core
