// Arrivals, deadlines and memory of barriers.
#include "causeway/coordination/barriers.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "causeway/base/limits.h"

namespace causeway::coordination {
namespace {

std::string Name(const Barriers::Key& key) {
  return absl::StrCat("barrier ", key.first, " (use ", key.second, ")");
}

std::vector<int> Missing(const std::set<int>& tasks, const std::vector<int>& arrived) {
  std::set<int> missing = tasks;
  for (int task : arrived) missing.erase(task);
  return std::vector<int>(missing.begin(), missing.end());
}

}  // namespace

Barriers::Barriers(Timers& timers, TaskTable& tasks)
    : timers_(timers), tasks_(tasks), life_(std::make_shared<Life>(this)) {}

Barriers::~Barriers() {
  {
    absl::MutexLock lock(&life_->mu);
    life_->barriers = nullptr;
  }
  FailAll(absl::CancelledError("the coordination service ended"));
}

void Barriers::Remember(const Key& key, const absl::Status& how) {
  ended_[key] = how;
  ended_order_.push_back(key);
  if (static_cast<int64_t>(ended_order_.size()) > limits::kFinishedBarriersMax) {
    ended_.erase(ended_order_.front());
    ended_order_.pop_front();
  }
}

Barriers::Barrier Barriers::End(Open::iterator it, const absl::Status& how) {
  Barrier barrier = std::move(it->second);
  Remember(it->first, how);
  open_.erase(it);
  return barrier;
}

void Barriers::Tell(Barrier barrier, const absl::Status& how) {
  timers_.Cancel(barrier.deadline);
  for (auto& [task, arrival] : barrier.arrived) std::move(arrival.done)(how);
}

uint64_t Barriers::Arrive(const Key& key, int task, std::vector<int> tasks,
                          absl::Duration timeout, DoneCallback done) {
  const bool everyone = tasks.empty();
  if (everyone) tasks = tasks_.Alive();
  std::set<int> wanted(tasks.begin(), tasks.end());
  std::optional<Barrier> complete;
  absl::Status refused;
  {
    absl::MutexLock lock(&mu_);
    auto it = open_.find(key);
    // Who is alive may have changed since the first arrival: that one decided.
    if (everyone && it != open_.end()) wanted = it->second.tasks;
    if (auto ended = ended_.find(key); ended != ended_.end()) {
      refused = ended->second;
    } else if (!wanted.contains(task)) {
      refused = absl::InvalidArgumentError(
          absl::StrCat("task ", task, " came to ", Name(key), ", which is for tasks ",
                       absl::StrJoin(wanted, ", "), "; name it there"));
    } else if (it != open_.end() && it->second.tasks != wanted) {
      refused = absl::InvalidArgumentError(absl::StrCat(
          "task ", task, " came to ", Name(key), " for tasks ", absl::StrJoin(wanted, ", "),
          ", but an earlier one for tasks ", absl::StrJoin(it->second.tasks, ", "),
          "; all must name the same"));
    } else if (it != open_.end() && it->second.arrived.contains(task)) {
      refused = absl::InvalidArgumentError(
          absl::StrCat("task ", task, " waits at ", Name(key), " already"));
    } else if (it == open_.end() &&
               (static_cast<int64_t>(open_.size()) >= limits::kBarriersMax ||
                static_cast<int64_t>(wanted.size()) > limits::kBarrierTasksMax)) {
      refused = absl::ResourceExhaustedError(absl::StrCat(
          open_.size(), " barriers are open and this one has ", wanted.size(),
          " tasks; the bounds are ", limits::kBarriersMax, " and ", limits::kBarrierTasksMax));
    } else {
      if (it == open_.end()) {
        it = open_.emplace(key, Barrier{std::move(wanted), {}, TimerId()}).first;
        it->second.deadline = timers_.Schedule(timeout, [life = life_, key] {
          absl::MutexLock life_lock(&life->mu);
          if (life->barriers != nullptr) life->barriers->TimeOut(key);
        });
      }
      const uint64_t ticket = next_ticket_++;
      it->second.arrived.emplace(task, Arrival{ticket, std::move(done)});
      if (it->second.arrived.size() < it->second.tasks.size()) return ticket;
      complete = End(it, absl::OkStatus());
    }
  }
  if (complete.has_value()) {
    Tell(*std::move(complete), absl::OkStatus());  // this call among them
  } else {
    std::move(done)(refused);
  }
  return 0;
}

bool Barriers::Leave(const Key& key, uint64_t ticket) {
  DoneCallback dropped;  // destroyed after the lock
  absl::MutexLock lock(&mu_);
  auto it = open_.find(key);
  if (it == open_.end()) return false;
  auto& arrived = it->second.arrived;
  for (auto arrival = arrived.begin(); arrival != arrived.end(); ++arrival) {
    if (arrival->second.ticket != ticket) continue;
    dropped = std::move(arrival->second.done);
    arrived.erase(arrival);
    return true;
  }
  return false;
}

absl::Status Barriers::Cancel(const Key& key) {
  const absl::Status how = absl::CancelledError(absl::StrCat(Name(key), " was cancelled"));
  Barrier barrier;
  {
    absl::MutexLock lock(&mu_);
    if (ended_.contains(key)) {
      return absl::FailedPreconditionError(
          absl::StrCat(Name(key), " is over, so it cannot be cancelled"));
    }
    auto it = open_.find(key);
    if (it == open_.end()) {
      Remember(key, how);
      return absl::OkStatus();
    }
    barrier = End(it, how);
  }
  Tell(std::move(barrier), how);
  return absl::OkStatus();
}

void Barriers::TimeOut(const Key& key) {
  Barrier barrier;
  absl::Status how;
  {
    absl::MutexLock lock(&mu_);
    auto it = open_.find(key);
    if (it == open_.end()) return;
    std::vector<int> arrived;
    for (const auto& [task, arrival] : it->second.arrived) arrived.push_back(task);
    how = absl::DeadlineExceededError(
        absl::StrCat(Name(key), " timed out; missing are tasks ",
                     absl::StrJoin(Missing(it->second.tasks, arrived), ", ")));
    barrier = End(it, how);
  }
  Tell(std::move(barrier), how);
}

void Barriers::FailAll(const absl::Status& why) {
  std::vector<Barrier> barriers;
  {
    absl::MutexLock lock(&mu_);
    while (!open_.empty()) barriers.push_back(End(open_.begin(), why));
  }
  for (Barrier& barrier : barriers) Tell(std::move(barrier), why);
}

int64_t Barriers::open() {
  absl::MutexLock lock(&mu_);
  return static_cast<int64_t>(open_.size());
}

}  // namespace causeway::coordination
