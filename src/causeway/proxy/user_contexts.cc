// Release book of user contexts.
#include "causeway/proxy/user_contexts.h"

#include <utility>

namespace causeway::proxy {

void UserContextLedger::Answered(uint64_t id, bool named_by_error) {
  if (id == 0) return;
  if (!named_by_error) {
    releasable_.push_back(id);
    return;
  }
  held_.push_back(id);
  if (held_.size() > max_held_) {
    releasable_.push_back(held_.front());
    held_.pop_front();
  }
}

int64_t UserContextLedger::Number(std::vector<uint64_t>* released) {
  released->clear();
  released->swap(releasable_);
  return next_number_++;
}

}  // namespace causeway::proxy
