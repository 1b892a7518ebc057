// Tests of the event loop: sockets, work from other threads, work that may wait.
#include "causeway/net/event_loop.h"

#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace causeway::net {
namespace {

constexpr absl::Duration kBound = absl::Seconds(20);

class Collector : public EventLoop::Handler {
 public:
  Collector(EventLoop& loop, Socket socket) : loop_(loop), socket_(std::move(socket)) {}
  void OnReadable() override {
    char bytes[64];
    const ssize_t size = ::recv(socket_.fd(), bytes, sizeof bytes, MSG_DONTWAIT);
    if (size > 0) text.append(bytes, static_cast<size_t>(size));
    if (size != 0) return;
    loop_.Remove(socket_.fd());
    ended.Notify();
  }
  void OnWritable() override {
    loop_.SetWritable(socket_.fd(), false);
    if (!writable.HasBeenNotified()) writable.Notify();
  }
  int fd() const { return socket_.fd(); }

  std::string text;  // the loop's until ended
  absl::Notification ended, writable;

 private:
  EventLoop& loop_;
  Socket socket_;
};

// Returns once the loop watches the collector's socket.
void AddAndWait(EventLoop& loop, const std::shared_ptr<Collector>& collector) {
  absl::Notification added;
  loop.Post([&] {
    EXPECT_TRUE(loop.Add(collector->fd(), collector).ok());
    added.Notify();
  });
  added.WaitForNotification();
}

TEST(EventLoop, ReadsUntilTheEnd) {
  auto loop = EventLoop::Start("test");
  ASSERT_TRUE(loop.ok());
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  auto collector = std::make_shared<Collector>(**loop, Socket(ends[0]));
  (*loop)->Post([&] { EXPECT_TRUE((*loop)->Add(collector->fd(), collector).ok()); });
  {
    const Socket other(ends[1]);
    ASSERT_TRUE(SendAll(other.fd(), std::string(1000, 'x')).ok());
  }
  ASSERT_TRUE(collector->ended.WaitForNotificationWithTimeout(kBound));
  EXPECT_EQ(collector->text, std::string(1000, 'x'));
}

TEST(EventLoop, TellsThatASocketTakesBytes) {
  auto loop = EventLoop::Start("test");
  ASSERT_TRUE(loop.ok());
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const Socket other(ends[1]);
  auto collector = std::make_shared<Collector>(**loop, Socket(ends[0]));
  AddAndWait(**loop, collector);
  EXPECT_FALSE(collector->writable.HasBeenNotified());
  (*loop)->SetWritable(collector->fd(), true);
  EXPECT_TRUE(collector->writable.WaitForNotificationWithTimeout(kBound));
}

TEST(EventLoop, WorkComesInOrderAndWhatMayWaitComesToo) {
  auto loop = EventLoop::Start("test");
  ASSERT_TRUE(loop.ok());
  std::vector<int> order;
  absl::Notification posted, soon;
  for (int i = 0; i < 100; ++i) (*loop)->Post([&order, i] { order.push_back(i); });
  (*loop)->Post([&] { posted.Notify(); });
  ASSERT_TRUE(posted.WaitForNotificationWithTimeout(kBound));
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
  int together = 0;
  for (int i = 0; i < 3; ++i) (*loop)->PostSoon([&] { ++together; });
  (*loop)->PostSoon([&] { soon.Notify(); });
  ASSERT_TRUE(soon.WaitForNotificationWithTimeout(kBound));
  EXPECT_EQ(together, 3);
}

TEST(EventLoop, ItsEndDropsHandlersAndWork) {
  auto loop = EventLoop::Start("test");
  ASSERT_TRUE(loop.ok());
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  auto collector = std::make_shared<Collector>(**loop, Socket(ends[0]));
  AddAndWait(**loop, collector);
  std::weak_ptr<Collector> weak = collector;
  collector = nullptr;
  *loop = nullptr;
  EXPECT_TRUE(weak.expired());
  char byte;
  EXPECT_EQ(::recv(ends[1], &byte, 1, 0), 0);
  ::close(ends[1]);
}

}  // namespace
}  // namespace causeway::net
