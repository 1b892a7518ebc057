// What a thread sends to several workers while it holds a lock, written after it has let go.
//
// A write is a system call, and with many workers their sum is most of what a program costs the
// head. So a link in the scope of a burst only queues. At its end the thread writes to few links
// itself, which is the shortest way. Many are left to a thread that does nothing else, and so are
// some that have not answered what they got before, whom nobody waits for just now: while that
// thread goes round, more commands are queued, and each write carries all that wait for its worker.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace causeway::core {

class SendBurst {
 public:
  // Up to so many links the sender writes itself.
  static constexpr size_t kOwnWritesMax = 4;
  // And up to so many when all of them have answered.
  static constexpr size_t kOwnWritesToIdleMax = 16;

  class Link {
   public:
    virtual ~Link() = default;
    // Writes what is queued, as far as the network takes it. Never blocks.
    virtual void WriteQueued() = 0;
    // Whether the worker has said anything since the last WriteQueued.
    virtual bool HasAnswered() const = 0;
    // Has a thread of their own call WriteQueued of all `links`, of which this is one.
    virtual void HandOver(std::vector<std::shared_ptr<Link>> links) = 0;
  };

  // The calling thread's until Release. Bursts nest: the innermost one counts.
  SendBurst();
  ~SendBurst() { Release(); }
  SendBurst(const SendBurst&) = delete;
  SendBurst& operator=(const SendBurst&) = delete;

  // The calling thread's; null outside of any.
  static SendBurst* Current();
  void Add(std::shared_ptr<Link> link) { links_.push_back(std::move(link)); }
  // Ends the burst: has everything written. To be called without locks.
  void Release();

 private:
  bool WritesItself() const;

  SendBurst* const outer_;
  bool released_ = false;
  std::vector<std::shared_ptr<Link>> links_;
};

}  // namespace causeway::core
