// epoll, an eventfd for work given from outside, a timerfd for work that may wait a little.
#include "causeway/net/event_loop.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace causeway::net {
namespace {

constexpr int kEventsPerCall = 64;

absl::Status NoDescriptors() {
  return absl::ResourceExhaustedError(absl::StrCat("cannot wait for connections: ",
                                                   std::strerror(errno),
                                                   "; raise the limit of open files (ulimit -n)"));
}

bool Watch(const Socket& poll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  return ::epoll_ctl(poll.fd(), EPOLL_CTL_ADD, fd, &event) == 0;
}

void Drain(int fd) {
  uint64_t ignored;
  [[maybe_unused]] const ssize_t read = ::read(fd, &ignored, sizeof ignored);
}

}  // namespace

absl::StatusOr<std::unique_ptr<EventLoop>> EventLoop::Start(const char* name) {
  Socket poll(::epoll_create1(EPOLL_CLOEXEC));
  Socket wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  Socket timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!poll || !wake || !timer || !Watch(poll, wake.fd()) || !Watch(poll, timer.fd())) {
    return NoDescriptors();
  }
  return std::unique_ptr<EventLoop>(
      new EventLoop(name, std::move(poll), std::move(wake), std::move(timer)));
}

EventLoop::EventLoop(const char* name, Socket poll, Socket wake, Socket timer)
    : poll_(std::move(poll)), wake_(std::move(wake)), timer_(std::move(timer)) {
  thread_ = std::thread([this] { Loop(); });
  ::pthread_setname_np(thread_.native_handle(), name);
}

EventLoop::~EventLoop() {
  stop_ = true;
  Post([] {});
  thread_.join();
}

absl::Status EventLoop::Add(int fd, std::shared_ptr<Handler> handler) {
  if (!Watch(poll_, fd)) return NoDescriptors();
  handlers_[fd] = std::move(handler);
  return absl::OkStatus();
}

void EventLoop::Remove(int fd) {
  ::epoll_ctl(poll_.fd(), EPOLL_CTL_DEL, fd, nullptr);
  handlers_.erase(fd);
}

void EventLoop::SetWritable(int fd, bool wanted) {
  epoll_event event{};
  event.events = wanted ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.fd = fd;
  ::epoll_ctl(poll_.fd(), EPOLL_CTL_MOD, fd, &event);
}

void EventLoop::Post(absl::AnyInvocable<void()> work) {
  {
    absl::MutexLock lock(&mu_);
    posted_.push_back(std::move(work));
    if (posted_.size() > 1) return;  // it is awake, or will be
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.fd(), &one, sizeof one);
}

void EventLoop::PostSoon(absl::AnyInvocable<void()> work) {
  absl::MutexLock lock(&mu_);
  soon_.push_back(std::move(work));
  if (soon_.size() > 1) return;
  itimerspec when{};
  when.it_value = absl::ToTimespec(kSoon);
  ::timerfd_settime(timer_.fd(), 0, &when, nullptr);
}

void EventLoop::Run(Works* works) {
  Works taken;
  {
    absl::MutexLock lock(&mu_);
    taken.swap(*works);
  }
  for (auto& work : taken) work();
}

void EventLoop::Loop() {
  epoll_event events[kEventsPerCall];
  while (!stop_) {
    const int count = ::epoll_wait(poll_.fd(), events, kEventsPerCall, -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == wake_.fd()) {
        Drain(fd);
        Run(&posted_);
      } else if (fd == timer_.fd()) {
        Drain(fd);
        Run(&soon_);
      } else {
        // Held, because it may remove itself; looked for anew, because another one may have.
        for (const uint32_t kind : {EPOLLOUT, EPOLLIN}) {
          const uint32_t asked = kind == EPOLLIN ? EPOLLIN | EPOLLHUP | EPOLLERR : EPOLLOUT;
          const auto found = handlers_.find(fd);
          if ((events[i].events & asked) == 0 || found == handlers_.end()) continue;
          const std::shared_ptr<Handler> handler = found->second;
          kind == EPOLLIN ? handler->OnReadable() : handler->OnWritable();
        }
      }
    }
  }
  handlers_.clear();
}

}  // namespace causeway::net
