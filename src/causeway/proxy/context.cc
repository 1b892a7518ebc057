// Tables that the sessions of one proxy share.
#include "causeway/proxy/context.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace causeway::proxy {

absl::Status Context::AddStream(const std::shared_ptr<Session>& session) {
  absl::MutexLock lock(&mu_);
  if (draining_) {
    return absl::UnavailableError("this server is shutting down; connect again when it is back");
  }
  if (streams_.size() >= static_cast<size_t>(options.max_sessions)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("this server has max_sessions = ", options.max_sessions,
                     " sessions open; close one or raise the limit"));
  }
  streams_.emplace(session.get(), session);
  return absl::OkStatus();
}

void Context::RemoveStream(const Session* session) {
  std::shared_ptr<Session> last;  // destroyed after the lock
  absl::MutexLock lock(&mu_);
  auto it = streams_.find(session);
  if (it == streams_.end()) return;
  last = std::move(it->second);
  streams_.erase(it);
}

size_t Context::num_streams() {
  absl::MutexLock lock(&mu_);
  return streams_.size();
}

std::vector<std::shared_ptr<Session>> Context::Drain() {
  absl::MutexLock lock(&mu_);
  draining_ = true;
  std::vector<std::shared_ptr<Session>> out;
  for (const auto& [key, session] : streams_) out.push_back(session);
  return out;
}

bool Context::AwaitNoStreams(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  auto none = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return streams_.empty(); };
  return mu_.AwaitWithDeadline(absl::Condition(&none), deadline);
}

void Context::Publish(SessionId id, std::shared_ptr<HostBufferStore> store) {
  absl::MutexLock lock(&mu_);
  stores_[id.value()] = std::move(store);
}

void Context::Retract(SessionId id) {
  absl::MutexLock lock(&mu_);
  stores_.erase(id.value());
}

absl::StatusOr<std::shared_ptr<HostBufferStore>> Context::FindStore(uint64_t session_id) {
  absl::MutexLock lock(&mu_);
  auto it = stores_.find(session_id);
  if (it == stores_.end()) {
    return absl::NotFoundError(absl::StrCat(
        "session ", session_id, " is not open on this server; host buffers need the session's "
        "stream, on the same server process"));
  }
  return it->second;
}

}  // namespace causeway::proxy
