// Turns at reading and running; an eventfd and a timerfd wake the one that stands by.
#include "causeway/worker/operation_threads.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace causeway::worker {
namespace {

constexpr absl::Duration kTick = absl::Seconds(1);

void Drain(int fd) {
  uint64_t ignored;
  [[maybe_unused]] const ssize_t read = ::read(fd, &ignored, sizeof ignored);
}

}  // namespace

absl::StatusOr<std::unique_ptr<OperationThreads>> OperationThreads::Start(Lane lane,
                                                                         absl::Duration patience) {
  net::Socket wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  net::Socket timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!wake || !timer) {
    return absl::ResourceExhaustedError(
        "no descriptor is left for the worker's own threads; raise the limit of open files "
        "(ulimit -n)");
  }
  return std::unique_ptr<OperationThreads>(
      new OperationThreads(std::move(lane), patience, std::move(wake), std::move(timer)));
}

OperationThreads::OperationThreads(Lane lane, absl::Duration patience, net::Socket wake,
                                   net::Socket timer)
    : lane_(std::move(lane)),
      patience_(patience),
      wake_(std::move(wake)),
      timer_(std::move(timer)),
      next_tick_(absl::Now() + kTick) {
  first_ = std::thread([this] { Loop(); });
  second_ = std::thread([this] { Loop(); });
  for (std::thread* thread : {&first_, &second_}) {
    ::pthread_setname_np(thread->native_handle(), "operations");
  }
}

void OperationThreads::Post(Work work) {
  {
    absl::MutexLock lock(&mu_);
    queue_.push_back(std::move(work));
    // Whoever runs comes to it, and so does the one who reads, after what it delivers just now.
    if (running_ || reader_ == std::this_thread::get_id() || queue_.size() > 1) return;
  }
  Wake();
}

void OperationThreads::RunElsewhere() { Wake(); }

void OperationThreads::Serve(Source* source) {
  absl::MutexLock lock(&mu_);
  source_ = source;
  Wake();
  while (source_ != nullptr) ended_.Wait(&mu_);
}

void OperationThreads::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stop_ = true;
  }
  Wake();
  if (first_.joinable()) first_.join();
  if (second_.joinable()) second_.join();
}

void OperationThreads::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.fd(), &one, sizeof one);
}

void OperationThreads::Outside(absl::FunctionRef<void()> what) {
  mu_.Unlock();
  what();
  mu_.Lock();
}

void OperationThreads::SetTimer(absl::Duration delay) {
  itimerspec when{};
  when.it_value = absl::ToTimespec(std::max(delay, absl::Microseconds(1)));
  ::timerfd_settime(timer_.fd(), 0, &when, nullptr);
  timer_set_ = true;
}

void OperationThreads::Loop() {
  absl::MutexLock lock(&mu_);
  while (!stop_) {
    if (!running_ && !queue_.empty()) {
      Run(/*then_idle=*/true);
    } else if (source_ != nullptr && reader_ == std::thread::id()) {
      Read();
    } else {
      StandBy();
    }
  }
}

void OperationThreads::Read() {
  const std::thread::id me = std::this_thread::get_id();
  reader_ = me;
  bool wait = false;
  while (reader_ == me) {
    Source::Result result;
    Outside([&, source = source_] { result = source->Read(wait); });
    wait = result == Source::Result::kNothing;
    if (result == Source::Result::kEnd) {
      reader_ = std::thread::id();
      source_ = nullptr;
      ended_.SignalAll();
    } else if (!running_ && (wait || !queue_.empty())) {
      not_read_since_ = absl::Now();
      if (!timer_set_) SetTimer(patience_);
      Run(/*then_idle=*/wait);
      if (reader_ == me) not_read_since_ = absl::InfiniteFuture();
    }
  }
}

void OperationThreads::Run(bool then_idle) {
  running_ = true;
  std::deque<Work> batch;
  while (!stop_) {
    if (absl::Now() >= next_tick_) {
      next_tick_ = absl::Now() + kTick;
      Outside(lane_.tick);
    } else if (!queue_.empty()) {
      batch.swap(queue_);
      Outside([&] {
        for (Work& work : batch) {
          lane_.run(work);
          work = nullptr;  // releases what it holds before the next one runs
        }
        batch.clear();
      });
    } else if (std::exchange(then_idle, false)) {
      Outside(lane_.idle);
    } else {
      break;
    }
  }
  running_ = false;
}

void OperationThreads::StandBy() {
  const absl::Duration until_tick = std::max(next_tick_ - absl::Now(), absl::Milliseconds(1));
  pollfd due[] = {{wake_.fd(), POLLIN, 0}, {timer_.fd(), POLLIN, 0}};
  Outside([&] { ::poll(due, 2, static_cast<int>(absl::ToInt64Milliseconds(until_tick)) + 1); });
  if (stop_) return;  // the other one has to hear of it too
  if (due[0].revents != 0) Drain(wake_.fd());
  if (due[1].revents != 0) {
    Drain(timer_.fd());
    timer_set_ = false;
    const absl::Duration not_read = absl::Now() - not_read_since_;
    if (not_read >= patience_) {
      reader_ = std::thread::id();  // it is this thread's turn
      not_read_since_ = absl::InfiniteFuture();
    } else if (not_read_since_ != absl::InfiniteFuture()) {
      SetTimer(patience_ - not_read);
    }
  }
  if (!running_ && absl::Now() >= next_tick_) Run(/*then_idle=*/true);
}

}  // namespace causeway::worker
