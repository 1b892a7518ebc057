// Which client-side stacks ("user contexts") the client may forget, and when to say so.
//
// Nearly every request names a stack that the client keeps alive until the server releases it, once
// for every request that named it. Releases ride on numbered replies; numbers have no gaps, because
// the client frees in their order. A stack that an error names is held back, so that the client can
// still print it when it meets that error; the oldest held ones go when there are too many.
// Thread safety: none; the reply queue guards it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace causeway::proxy {

class UserContextLedger {
 public:
  explicit UserContextLedger(size_t max_held = 1024) : max_held_(max_held) {}

  // A request that named `id` has been answered. 0 is nobody.
  void Answered(uint64_t id, bool named_by_error);
  // The next reply number and the ids it releases.
  int64_t Number(std::vector<uint64_t>* released);

 private:
  const size_t max_held_;
  int64_t next_number_ = 0;
  std::vector<uint64_t> releasable_;
  std::deque<uint64_t> held_;
};

}  // namespace causeway::proxy
