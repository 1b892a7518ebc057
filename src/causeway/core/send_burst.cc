// The thread's burst, and who writes at its end.
#include "causeway/core/send_burst.h"

#include <utility>

#include "absl/algorithm/container.h"

namespace causeway::core {
namespace {

thread_local SendBurst* current = nullptr;

}  // namespace

SendBurst::SendBurst() : outer_(std::exchange(current, this)) {}

SendBurst* SendBurst::Current() { return current; }

bool SendBurst::WritesItself() const {
  if (links_.size() <= kOwnWritesMax) return true;
  return links_.size() <= kOwnWritesToIdleMax &&
         absl::c_all_of(links_, [](const auto& link) { return link->HasAnswered(); });
}

void SendBurst::Release() {
  if (std::exchange(released_, true)) return;
  current = outer_;
  if (!WritesItself()) {
    const std::shared_ptr<Link> any = links_.front();
    return any->HandOver(std::move(links_));
  }
  for (const auto& link : links_) link->WriteQueued();
}

}  // namespace causeway::core
