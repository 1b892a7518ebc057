// Lives of node ids and those who watch them.
#include "causeway/coordination/task_table.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/limits.h"

namespace causeway::coordination {

void TaskTable::Begin(int id) {
  std::pair<Watchers, TaskSnapshot> due;
  {
    absl::MutexLock lock(&mu_);
    Task& task = tasks_[id];
    task.id = id;
    task.alive = true;
    task.end = absl::OkStatus();
    ++version_;
    due = Due();
  }
  Tell(std::move(due));
}

void TaskTable::EndLocked(Task& task, const absl::Status& why) {
  if (!task.alive) return;
  task.alive = false;
  task.end = why;
  ++version_;
}

void TaskTable::End(int id, const absl::Status& why) {
  std::pair<Watchers, TaskSnapshot> due;
  {
    absl::MutexLock lock(&mu_);
    auto it = tasks_.find(id);
    if (it == tasks_.end()) return;
    EndLocked(it->second, why);
    due = Due();
  }
  Tell(std::move(due));
}

void TaskTable::EndAll(const absl::Status& why) {
  std::pair<Watchers, TaskSnapshot> due;
  {
    absl::MutexLock lock(&mu_);
    for (auto& [id, task] : tasks_) EndLocked(task, why);
    due = Due();
  }
  Tell(std::move(due));
}

void TaskTable::SetIncarnation(int id, uint64_t incarnation) {
  std::pair<Watchers, TaskSnapshot> due;
  {
    absl::MutexLock lock(&mu_);
    Task& task = tasks_[id];
    if (task.id == id && task.incarnation == incarnation) return;
    task.id = id;
    task.incarnation = incarnation;
    ++version_;
    due = Due();
  }
  Tell(std::move(due));
}

bool TaskTable::IsAlive(int id) {
  absl::MutexLock lock(&mu_);
  auto it = tasks_.find(id);
  return it != tasks_.end() && it->second.alive;
}

absl::Status TaskTable::EndOf(int id) {
  absl::MutexLock lock(&mu_);
  auto it = tasks_.find(id);
  return it == tasks_.end() || it->second.alive ? absl::OkStatus() : it->second.end;
}

std::vector<int> TaskTable::Alive() {
  absl::MutexLock lock(&mu_);
  std::vector<int> alive;
  for (const auto& [id, task] : tasks_) {
    if (task.alive) alive.push_back(id);
  }
  return alive;
}

TaskSnapshot TaskTable::SnapshotLocked() const {
  TaskSnapshot snapshot;
  snapshot.version = version_;
  for (const auto& [id, task] : tasks_) snapshot.tasks.push_back(task);
  return snapshot;
}

TaskSnapshot TaskTable::Snapshot() {
  absl::MutexLock lock(&mu_);
  return SnapshotLocked();
}

std::pair<TaskTable::Watchers, TaskSnapshot> TaskTable::Due() {
  std::pair<Watchers, TaskSnapshot> due;
  for (auto it = watchers_.begin(); it != watchers_.end();) {
    if (it->second.version >= version_) {
      ++it;
      continue;
    }
    due.first.insert(watchers_.extract(it++));
  }
  if (!due.first.empty()) due.second = SnapshotLocked();
  return due;
}

void TaskTable::Tell(std::pair<Watchers, TaskSnapshot> due) {
  for (auto& [id, watcher] : due.first) std::move(watcher.done)(due.second);
}

uint64_t TaskTable::Watch(int64_t version, WatchCallback done) {
  absl::StatusOr<TaskSnapshot> answer = TaskSnapshot();
  {
    absl::MutexLock lock(&mu_);
    if (version < version_) {
      answer = SnapshotLocked();
    } else if (static_cast<int64_t>(watchers_.size()) >= limits::kTaskWatchersMax) {
      answer = absl::ResourceExhaustedError(absl::StrCat(
          watchers_.size(), " calls watch the tasks already; watch again when some have ended"));
    } else {
      const uint64_t id = next_watch_++;
      watchers_.emplace(id, Watcher{version, std::move(done)});
      return id;
    }
  }
  std::move(done)(std::move(answer));
  return 0;
}

bool TaskTable::CancelWatch(uint64_t watch) {
  Watchers::node_type dropped;
  absl::MutexLock lock(&mu_);
  dropped = watchers_.extract(watch);
  return !dropped.empty();
}

void TaskTable::FailWatches(const absl::Status& why) {
  Watchers watchers;
  {
    absl::MutexLock lock(&mu_);
    watchers.swap(watchers_);
  }
  for (auto& [id, watcher] : watchers) std::move(watcher.done)(why);
}

}  // namespace causeway::coordination
