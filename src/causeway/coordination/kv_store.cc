// The store's map, its bounds and its waiters.
#include "causeway/coordination/kv_store.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace causeway::coordination {
namespace {

int64_t Weight(absl::string_view key, absl::string_view value) {
  return static_cast<int64_t>(key.size() + value.size());
}

std::string AsDirectory(absl::string_view key) {
  return key.empty() || absl::EndsWith(key, "/") ? std::string(key) : absl::StrCat(key, "/");
}

}  // namespace

absl::Status KvStore::CheckRoom(absl::string_view key, int64_t value_bytes) const {
  if (key.empty()) return absl::InvalidArgumentError("a key must have at least one character");
  if (static_cast<int64_t>(key.size()) > limits_.key_bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat("a key of ", key.size(), " bytes; at most ",
                                                   limits_.key_bytes_max, " are taken"));
  }
  if (value_bytes > limits_.value_bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat("the value of ", key, " has ", value_bytes,
                                                   " bytes; at most ", limits_.value_bytes_max,
                                                   " are taken"));
  }
  auto it = data_.find(key);
  const int64_t had = it == data_.end() ? 0 : Weight(it->first, it->second);
  const int64_t weight = static_cast<int64_t>(key.size()) + value_bytes;
  if (it == data_.end() && static_cast<int64_t>(data_.size()) >= limits_.keys_max) {
    return absl::ResourceExhaustedError(absl::StrCat("the coordination store holds its most of ",
                                                     limits_.keys_max, " keys; delete some"));
  }
  if (bytes_ - had + weight > limits_.total_bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the coordination store is full: ", bytes_, " of ", limits_.total_bytes_max,
                     " bytes are used, ", key, " needs ", weight, " more; delete some keys"));
  }
  return absl::OkStatus();
}

void KvStore::Set(absl::string_view key, std::string value) {
  auto it = data_.find(key);
  if (it == data_.end()) {
    bytes_ += Weight(key, value);
    data_.emplace(key, std::move(value));
    return;
  }
  bytes_ += static_cast<int64_t>(value.size()) - static_cast<int64_t>(it->second.size());
  it->second = std::move(value);
}

std::vector<KvStore::GetCallback> KvStore::TakeWaiters(absl::string_view key) {
  std::vector<GetCallback> taken;
  const auto [first, last] = waiting_for_.equal_range(key);
  for (auto it = first; it != last; ++it) {
    auto waiter = waiters_.find(it->second);
    taken.push_back(std::move(waiter->second.done));
    waiters_.erase(waiter);
  }
  waiting_for_.erase(first, last);
  return taken;
}

KvStore::Data::iterator KvStore::Erase(Data::iterator it) {
  bytes_ -= Weight(it->first, it->second);
  return data_.erase(it);
}

absl::Status KvStore::Insert(absl::string_view key, std::string value, bool allow_overwrite) {
  std::vector<GetCallback> waiters;
  std::string copy;
  {
    absl::MutexLock lock(&mu_);
    if (!allow_overwrite && data_.contains(key)) {
      return absl::AlreadyExistsError(
          absl::StrCat("key ", key, " is set already; delete it first, or allow overwriting"));
    }
    absl::Status room = CheckRoom(key, static_cast<int64_t>(value.size()));
    if (!room.ok()) return room;
    waiters = TakeWaiters(key);
    if (!waiters.empty()) copy = value;
    Set(key, std::move(value));
  }
  for (GetCallback& done : waiters) std::move(done)(copy);
  return absl::OkStatus();
}

absl::StatusOr<std::string> KvStore::TryGet(absl::string_view key) {
  absl::MutexLock lock(&mu_);
  auto it = data_.find(key);
  if (it == data_.end()) return absl::NotFoundError(absl::StrCat("nobody has set key ", key));
  return it->second;
}

uint64_t KvStore::Get(absl::string_view key, GetCallback done) {
  absl::StatusOr<std::string> answer = std::string();
  {
    absl::MutexLock lock(&mu_);
    auto it = data_.find(key);
    if (it != data_.end()) {
      answer = it->second;
    } else if (static_cast<int64_t>(key.size()) > limits_.key_bytes_max) {
      answer = absl::InvalidArgumentError(absl::StrCat("a key of ", key.size(), " bytes; at most ",
                                                       limits_.key_bytes_max, " are taken"));
    } else if (static_cast<int64_t>(waiters_.size()) >= limits_.waiters_max) {
      answer = absl::ResourceExhaustedError(
          absl::StrCat(waiters_.size(), " calls wait for keys already; ask for ", key,
                       " again when some of them are answered"));
    } else {
      const uint64_t id = next_waiter_++;
      waiters_.emplace(id, Waiter{std::string(key), std::move(done)});
      waiting_for_.emplace(key, id);
      return id;
    }
  }
  std::move(done)(std::move(answer));
  return 0;
}

bool KvStore::CancelGet(uint64_t waiter) {
  GetCallback dropped;
  absl::MutexLock lock(&mu_);
  auto it = waiters_.find(waiter);
  if (it == waiters_.end()) return false;
  const auto [first, last] = waiting_for_.equal_range(it->second.key);
  for (auto entry = first; entry != last; ++entry) {
    if (entry->second != waiter) continue;
    waiting_for_.erase(entry);
    break;
  }
  dropped = std::move(it->second.done);
  waiters_.erase(it);
  return true;
}

std::vector<KvStore::Entry> KvStore::List(absl::string_view directory) {
  const std::string prefix = AsDirectory(directory);
  std::vector<Entry> entries;
  absl::MutexLock lock(&mu_);
  for (auto it = data_.lower_bound(prefix);
       it != data_.end() && absl::StartsWith(it->first, prefix); ++it) {
    entries.emplace_back(it->first, it->second);
  }
  return entries;
}

void KvStore::Delete(absl::string_view key, bool is_directory) {
  {
    absl::MutexLock lock(&mu_);
    auto it = data_.find(key);
    if (it != data_.end()) Erase(it);
  }
  if (is_directory) DeletePrefix(AsDirectory(key));
}

int64_t KvStore::DeletePrefix(absl::string_view prefix) {
  int64_t deleted = 0;
  absl::MutexLock lock(&mu_);
  auto it = data_.lower_bound(prefix);
  while (it != data_.end() && absl::StartsWith(it->first, prefix)) {
    it = Erase(it);
    ++deleted;
  }
  return deleted;
}

int64_t KvStore::DeleteAllBut(const std::set<std::string>& kept) {
  int64_t deleted = 0;
  absl::MutexLock lock(&mu_);
  for (auto it = data_.begin(); it != data_.end();) {
    if (kept.contains(it->first)) {
      ++it;
      continue;
    }
    it = Erase(it);
    ++deleted;
  }
  return deleted;
}

absl::StatusOr<std::string> KvStore::Increment(absl::string_view key, int64_t by) {
  std::vector<GetCallback> waiters;
  std::string text;
  {
    absl::MutexLock lock(&mu_);
    int64_t value = 0;
    auto it = data_.find(key);
    if (it != data_.end() && !absl::SimpleAtoi(it->second, &value)) {
      return absl::FailedPreconditionError(
          absl::StrCat("key ", key, " holds no number, so it cannot be incremented"));
    }
    if (__builtin_add_overflow(value, by, &value)) {
      return absl::FailedPreconditionError(
          absl::StrCat("incrementing key ", key, " by ", by, " leaves the 64-bit numbers"));
    }
    text = absl::StrCat(value);
    absl::Status room = CheckRoom(key, static_cast<int64_t>(text.size()));
    if (!room.ok()) return room;
    waiters = TakeWaiters(key);
    Set(key, text);
  }
  for (GetCallback& done : waiters) std::move(done)(text);
  return text;
}

int64_t KvStore::FailWaiters(const absl::Status& why) {
  std::map<uint64_t, Waiter> waiters;
  {
    absl::MutexLock lock(&mu_);
    waiters.swap(waiters_);
    waiting_for_.clear();
  }
  for (auto& [id, waiter] : waiters) {
    std::move(waiter.done)(absl::Status(
        why.code(), absl::StrCat("while waiting for key ", waiter.key, ": ", why.message())));
  }
  return static_cast<int64_t>(waiters.size());
}

int64_t KvStore::num_keys() {
  absl::MutexLock lock(&mu_);
  return static_cast<int64_t>(data_.size());
}

int64_t KvStore::num_waiters() {
  absl::MutexLock lock(&mu_);
  return static_cast<int64_t>(waiters_.size());
}

}  // namespace causeway::coordination
