// A pool that grows with demand and shrinks when idle.
#include "causeway/callbacks/completions.h"

#include <thread>
#include <utility>

#include "absl/time/time.h"

namespace causeway::callbacks {
namespace {
constexpr absl::Duration kIdle = absl::Seconds(30);
}  // namespace

void Completions::Add(absl::AnyInvocable<void() &&> completion) {
  absl::MutexLock lock(&mu_);
  queue_.push_back(std::move(completion));
  if (idle_ >= queue_.size()) return;  // one of them wakes for it
  std::thread([this] { Work(); }).detach();
}

void Completions::Work() {
  absl::MutexLock lock(&mu_);
  auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !queue_.empty(); };
  while (true) {
    ++idle_;
    const bool found = mu_.AwaitWithTimeout(absl::Condition(&has_work), kIdle);
    --idle_;
    if (!found) return;
    {
      absl::AnyInvocable<void()&&> completion = std::move(queue_.front());
      queue_.pop_front();
      mu_.Unlock();
      std::move(completion)();
      completion = nullptr;
      mu_.Lock();
    }
  }
}

}  // namespace causeway::callbacks
