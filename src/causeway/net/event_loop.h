// One thread that waits for many sockets, and does what other threads give it.
#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "causeway/net/sockets.h"

namespace causeway::net {

// Thread safety: Post, PostSoon and SetWritable are thread-safe; Add and Remove are the loop's own
// thread's. The destructor ends the thread and drops what was posted and not done.
class EventLoop {
 public:
  // What PostSoon may wait for more of the same. Longer than most steps of a program: what leaves
  // with the next command then costs no write, no wake-up and no read of its own.
  static constexpr absl::Duration kSoon = absl::Milliseconds(20);

  // Called on the loop's thread.
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void OnReadable() = 0;
    virtual void OnWritable() {}
  };

  // `name` shows in tools that list threads: at most 15 characters. RESOURCE_EXHAUSTED when the
  // process has no descriptors left.
  static absl::StatusOr<std::unique_ptr<EventLoop>> Start(const char* name);
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Tells the handler whenever there is something to read, or the end. The handler lives until
  // Remove, and the descriptor has to.
  absl::Status Add(int fd, std::shared_ptr<Handler> handler);
  void Remove(int fd);
  // Whether the handler wants to hear that the socket takes bytes again.
  void SetWritable(int fd, bool wanted);

  void Post(absl::AnyInvocable<void()> work);
  // The same after at most kSoon, in one go with whatever else is posted until then: no thread is
  // woken by the call.
  void PostSoon(absl::AnyInvocable<void()> work);

 private:
  using Works = std::vector<absl::AnyInvocable<void()>>;

  EventLoop(const char* name, Socket poll, Socket wake, Socket timer);
  void Loop();
  void Run(Works* works);

  const Socket poll_, wake_, timer_;
  std::atomic<bool> stop_{false};
  absl::flat_hash_map<int, std::shared_ptr<Handler>> handlers_;  // the thread's
  absl::Mutex mu_;
  Works posted_ ABSL_GUARDED_BY(mu_);
  Works soon_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace causeway::net
