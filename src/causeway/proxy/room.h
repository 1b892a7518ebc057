// How much of one thing a session holds, and who waits until it is less.
//
// Going over the limit refuses nobody: it holds back the reader of the session's requests, and HTTP/2
// then holds back the client.
// Thread safety: all methods may be called from any thread; `resume` runs without a lock held.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace causeway::proxy {

class Room {
 public:
  using Resume = absl::AnyInvocable<void() &&>;

  explicit Room(int64_t max) : max_(max) {}

  void Take(int64_t n) {
    absl::MutexLock lock(&mu_);
    used_ += n;
  }
  void GiveBack(int64_t n) {
    std::vector<Resume> waiters;
    {
      absl::MutexLock lock(&mu_);
      used_ -= n;
      if (used_ <= max_) waiters.swap(waiters_);
    }
    for (Resume& resume : waiters) std::move(resume)();
  }
  // True: there is room. False: `resume` will be called once, when there is.
  bool MayPass(Resume& resume) {
    absl::MutexLock lock(&mu_);
    if (used_ <= max_) return true;
    waiters_.push_back(std::move(resume));
    return false;
  }
  int64_t used() {
    absl::MutexLock lock(&mu_);
    return used_;
  }

 private:
  const int64_t max_;
  absl::Mutex mu_;
  int64_t used_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<Resume> waiters_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::proxy
