// A bounded key-value store whose readers may wait for a key: rendezvous for the workers' XLA.
//
// Keys are paths ("cpu:gloo/8192,10240/0"). Deletion of "a/b" as a directory takes "a/b" and all of
// "a/b/...".
//
// Thread safety: all methods are thread-safe. Callbacks run on the thread of the call that settles
// them, without the store's lock; each runs at most once.
// Errors: INVALID_ARGUMENT for a key or value over its bound, RESOURCE_EXHAUSTED when the store or
// the queue of waiters is full.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/limits.h"

namespace causeway::coordination {

class KvStore {
 public:
  struct Limits {
    int64_t key_bytes_max = limits::kKeyBytesMax;
    int64_t value_bytes_max = limits::kValueBytesMax;
    int64_t keys_max = limits::kKeysMax;
    int64_t total_bytes_max = limits::kKeyValueBytesMax;
    int64_t waiters_max = limits::kKeyWaitersMax;
  };
  using Entry = std::pair<std::string, std::string>;
  using GetCallback = absl::AnyInvocable<void(absl::StatusOr<std::string>) &&>;

  KvStore() : KvStore(Limits{}) {}
  explicit KvStore(const Limits& limits) : limits_(limits) {}

  // ALREADY_EXISTS when the key is there and may not be overwritten. Settles the key's waiters.
  absl::Status Insert(absl::string_view key, std::string value, bool allow_overwrite);
  // NOT_FOUND when absent.
  absl::StatusOr<std::string> TryGet(absl::string_view key);
  // Calls `done` with the value: before returning when the key is there (then the result is 0),
  // else when it comes. The result names the waiting call for CancelGet.
  uint64_t Get(absl::string_view key, GetCallback done);
  // True: the callback was dropped and will never run. False: it has run or is about to.
  bool CancelGet(uint64_t waiter);
  // Every entry below `directory`, in order of keys.
  std::vector<Entry> List(absl::string_view directory);
  // Absent keys are no error.
  void Delete(absl::string_view key, bool is_directory);
  // Every key that starts with `prefix`, paths or not. Returns how many.
  int64_t DeletePrefix(absl::string_view prefix);
  // Every key that is not in `kept`. Returns how many.
  int64_t DeleteAllBut(const std::set<std::string>& kept);
  // An absent key counts as 0. FAILED_PRECONDITION when the value is no number or would overflow.
  absl::StatusOr<std::string> Increment(absl::string_view key, int64_t by);
  // Every waiting Get fails with `why`.
  int64_t FailWaiters(const absl::Status& why);

  int64_t num_keys();
  int64_t num_waiters();

 private:
  struct Waiter {
    std::string key;
    GetCallback done;
  };

  absl::Status CheckRoom(absl::string_view key, int64_t value_bytes) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Set(absl::string_view key, std::string value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<GetCallback> TakeWaiters(absl::string_view key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  using Data = std::map<std::string, std::string, std::less<>>;
  Data::iterator Erase(Data::iterator it) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Limits limits_;
  absl::Mutex mu_;
  Data data_ ABSL_GUARDED_BY(mu_);
  int64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t next_waiter_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<uint64_t, Waiter> waiters_ ABSL_GUARDED_BY(mu_);
  std::multimap<std::string, uint64_t, std::less<>> waiting_for_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::coordination
