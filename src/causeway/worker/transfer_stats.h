// What went over which path, for metrics and for `causeway explain transfer`.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "causeway/base/log.h"

namespace causeway::worker {

// Thread safety: thread-safe.
class TransferStats {
 public:
  // Transfers of a class ("push", "upload", "download") were done over a path ("shared_memory",
  // "stream", "local"): their bytes and times together.
  void Done(const std::string& kind, const std::string& path, int64_t bytes, absl::Duration spent,
            int64_t transfers = 1) {
    absl::MutexLock lock(&mu_);
    const std::string name = absl::StrCat(kind, "_", path);
    numbers_[name + "_transfers"] += transfers;
    numbers_[name + "_bytes"] += bytes;
    numbers_[name + "_microseconds"] += absl::ToInt64Microseconds(spent);
  }
  // A path that should have served did not. Said in the log once a minute at most.
  void FellBack(const std::string& kind, const absl::Status& why, absl::Time now = absl::Now()) {
    CountFallback(kind, why);
    {
      absl::MutexLock lock(&mu_);
      if (now < next_warning_) return;
      next_warning_ = now + absl::Minutes(1);
    }
    LOG(WARNING) << "a large block takes the network instead of shared memory (" << kind
                 << "): " << why.message();
  }
  // The same for those who say it in the log themselves.
  void CountFallback(const std::string& kind, const absl::Status& why) {
    absl::MutexLock lock(&mu_);
    ++numbers_[kind + "_fallbacks"];
    last_cause_ = std::string(why.message());
  }
  void Count(const std::string& name) {
    absl::MutexLock lock(&mu_);
    ++numbers_[name];
  }
  std::map<std::string, int64_t> Numbers() {
    absl::MutexLock lock(&mu_);
    return numbers_;
  }
  // Why a path was left last; "" = never.
  std::string last_cause() {
    absl::MutexLock lock(&mu_);
    return last_cause_;
  }

 private:
  absl::Mutex mu_;
  std::map<std::string, int64_t> numbers_ ABSL_GUARDED_BY(mu_);
  std::string last_cause_ ABSL_GUARDED_BY(mu_);
  absl::Time next_warning_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
};

}  // namespace causeway::worker
