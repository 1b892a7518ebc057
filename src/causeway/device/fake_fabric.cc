// Rounds of untagged messages.
#include "causeway/device/fake_fabric.h"

#include <algorithm>
#include <utility>

#include "causeway/device/types.h"

namespace causeway::device {
namespace {

absl::Status Closed() {
  return PeerFailure(absl::InternalError("all-reduce failed: Connection closed by peer"));
}

}  // namespace

void FakeFabric::Post(const std::set<int>& ids, int id, Message value, Done done) {
  // A set of one has no connections that could be cut: XLA drops such an all-reduce altogether.
  if (ids.size() == 1) {
    done(std::move(value));
    return;
  }
  Communicator& c = communicators_[ids];
  if (c.broken) {
    done(Closed());
    return;
  }
  c.inbox[id].push_back({std::move(value), std::move(done)});
  const bool full = std::all_of(ids.begin(), ids.end(), [&c](int member) {
    const auto it = c.inbox.find(member);
    return it != c.inbox.end() && !it->second.empty();
  });
  if (!full) return;
  std::vector<Waiting> round;
  size_t size = 0;
  for (auto& [member, queue] : c.inbox) {
    size = std::max(size, queue.front().value.size());
    round.push_back(std::move(queue.front()));
    queue.pop_front();
  }
  Message sum(size, 0.0);
  for (const Waiting& w : round) {
    for (size_t i = 0; i < w.value.size(); ++i) sum[i] += w.value[i];
  }
  for (const Waiting& w : round) w.done(sum);
}

void FakeFabric::Vanish(const std::set<int>& ids) {
  for (auto& [members, c] : communicators_) {
    for (const int id : ids) c.inbox.erase(id);
  }
}

int FakeFabric::Cut(const std::set<int>& ids) {
  std::vector<Waiting> dropped;
  for (auto& [members, c] : communicators_) {
    const bool hit =
        std::any_of(ids.begin(), ids.end(), [&all = members](int id) { return all.count(id) > 0; });
    if (!hit) continue;
    c.broken = true;
    for (auto& [member, queue] : c.inbox) {
      for (Waiting& w : queue) dropped.push_back(std::move(w));
      queue.clear();
    }
  }
  for (const Waiting& w : dropped) w.done(Closed());
  return static_cast<int>(dropped.size());
}

}  // namespace causeway::device
