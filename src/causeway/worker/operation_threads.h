// Two threads that take turns at reading commands and at running the operation lane.
//
//                 +-- the run lasts: the other one reads from now on --> stands by
//                 |                                                         |
//   reads ----> runs what it has read ----> reads                           |
//     ^                                                                     |
//     +-------- the other one's run lasts, or the stream is new ------------+
//
// To hand a command to another thread means to wake that thread, which takes longer than most
// operations. So the one that has read also runs. An operation may last, though: a collective waits
// for its peers. What has to be read meanwhile (an abort, a heartbeat) is read by the one that
// stands by, once `patience` is over. It also runs what others post while nobody runs.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "causeway/net/sockets.h"

namespace causeway::worker {

// Thread safety: thread-safe.
class OperationThreads {
 public:
  using Work = absl::AnyInvocable<void()>;

  // Where commands come from. Called by one thread at a time.
  class Source {
   public:
    enum class Result { kSome, kNothing, kEnd };
    virtual ~Source() = default;
    // Delivers what has come; what that posts runs after it. `wait`: waits for something first.
    virtual Result Read(bool wait) = 0;
  };

  // What the lane does, one call at a time.
  struct Lane {
    std::function<void(Work&)> run;
    std::function<void()> idle;  // nothing to run, nothing to read
    std::function<void()> tick;  // about once a second
  };

  // RESOURCE_EXHAUSTED when the process has no descriptors left.
  static absl::StatusOr<std::unique_ptr<OperationThreads>> Start(
      Lane lane, absl::Duration patience = absl::Milliseconds(2));
  ~OperationThreads() { Stop(); }

  // Runs in the order of the calls.
  void Post(Work work);
  // For a source that waits for what it has posted: the other thread runs that.
  void RunElsewhere();
  // Has the threads read `source` until its end.
  void Serve(Source* source);
  // What is posted and has not begun is dropped. No source is being served.
  void Stop();

 private:
  OperationThreads(Lane lane, absl::Duration patience, net::Socket wake, net::Socket timer);

  void Loop();
  void Read() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Run(bool then_idle) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StandBy() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Outside(absl::FunctionRef<void()> what) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SetTimer(absl::Duration delay) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Wake();

  const Lane lane_;
  const absl::Duration patience_;
  const net::Socket wake_, timer_;

  absl::Mutex mu_;
  absl::CondVar ended_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  Source* source_ ABSL_GUARDED_BY(mu_) = nullptr;
  std::thread::id reader_ ABSL_GUARDED_BY(mu_);  // whose turn at reading it is
  // Since when the reader runs operations instead.
  absl::Time not_read_since_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  bool timer_set_ ABSL_GUARDED_BY(mu_) = false;  // the one who stands by will look at that time
  std::deque<Work> queue_ ABSL_GUARDED_BY(mu_);
  bool running_ ABSL_GUARDED_BY(mu_) = false;  // one of them runs the lane
  absl::Time next_tick_ ABSL_GUARDED_BY(mu_);
  std::thread first_, second_;
};

}  // namespace causeway::worker
