// Release book of user contexts.
#include "causeway/proxy/user_contexts.h"

#include <utility>

#include "causeway/base/limits.h"

namespace causeway::proxy {

void UserContextLedger::Answered(uint64_t id, bool named_by_error) {
  if (id == 0) return;
  if (named_by_error) {
    held_.push_back(id);
    if (held_.size() <= max_held_) return;
    id = held_.front();
    held_.pop_front();
  }
  // Only a client that asks for nothing but unnumbered replies gets here; it keeps its stacks.
  if (releasable_.size() < limits::kSessionStacksMax) releasable_.push_back(id);
}

int64_t UserContextLedger::Number(std::vector<uint64_t>* released) {
  released->clear();
  released->swap(releasable_);
  return next_number_++;
}

}  // namespace causeway::proxy
