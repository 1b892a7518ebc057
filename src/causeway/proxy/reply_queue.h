// The write side of one session's stream: replies leave one at a time, in the order of Send().
//
// gRPC allows one outstanding write, so a reply is written straight away when none is, and queued
// otherwise. A reply that no client waits for is held until kHeldMax of them can leave together, or
// for a moment: each one that leaves alone wakes threads of the client, which take the processor
// from what the client does wait for. Every method may be called from any thread. After Finish()
// replies are dropped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "causeway/proxy/user_contexts.h"
#include "google/protobuf/arena.h"
#include "grpcpp/support/status.h"
#include "ifrt_session.pb.h"

namespace causeway::proxy {

// One reply and the memory it lives in.
class Reply {
 public:
  Reply();
  ifrt::IfrtResponse& message() { return *message_; }
  // Empties it for reuse.
  void Clear();

 private:
  alignas(8) char block_[1024];
  google::protobuf::Arena arena_;
  ifrt::IfrtResponse* message_;
};

// Where replies go: one session's stream. Called with the queue's lock held, so no method may call
// back into the queue.
class ReplyStream {
 public:
  virtual ~ReplyStream() = default;
  // Starts to write `message`, which stays until ReplyQueue::OnWriteDone. `more` is to follow at
  // once.
  virtual void Write(const ifrt::IfrtResponse& message, bool more) = 0;
  // Starts to read the next request.
  virtual void Read() = 0;
  // Has ReplyQueue::ReleaseHeld called in a moment.
  virtual void ReleaseSoon() = 0;
  virtual void Finish(const grpc::Status& status) = 0;
};

class ReplyQueue {
 public:
  static constexpr size_t kHeldMax = 32;

  // How a reply takes part in the client's bookkeeping of stacks.
  struct Bookkeeping {
    uint64_t user_context = 0;
    bool named_by_error = false;
    // Replies that the client handles apart from the others must not use up a number.
    bool numbered = false;
    // Whether a client may wait for the reply.
    bool awaited = true;
  };

  // `stream` must live until the callbacks that Finish() leads to.
  ReplyQueue(ReplyStream* stream, size_t max_queued) : max_queued_(max_queued), stream_(stream) {}

  std::unique_ptr<Reply> NewReply();
  void Send(std::unique_ptr<Reply> reply, const Bookkeeping& book);
  // To be called when the stream's write is done. True: reading was held back and may go on.
  bool OnWriteDone(bool ok);
  // False: too many replies wait; OnWriteDone will tell when to read again.
  bool MayRead();
  // Reads the next request, unless the stream has ended: gRPC counts what is under way, and takes a
  // read that begins after the end for another life of a stream that is gone.
  void Read();
  void ReleaseHeld();
  // Ends the stream; only the first call counts.
  void Finish(const grpc::Status& status);

 private:
  struct Queued {
    std::unique_ptr<Reply> reply;
    Bookkeeping book;
  };

  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void QueueHeld() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const size_t max_queued_;
  absl::Mutex mu_;
  ReplyStream* const stream_;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  bool reading_held_ ABSL_GUARDED_BY(mu_) = false;
  bool release_due_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<Queued> queue_ ABSL_GUARDED_BY(mu_);
  std::vector<Queued> held_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<Reply> writing_ ABSL_GUARDED_BY(mu_);
  std::vector<std::unique_ptr<Reply>> spare_ ABSL_GUARDED_BY(mu_);
  UserContextLedger contexts_ ABSL_GUARDED_BY(mu_);
  std::vector<uint64_t> released_ ABSL_GUARDED_BY(mu_);  // scratch
};

}  // namespace causeway::proxy
