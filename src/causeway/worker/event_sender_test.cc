// Tests of the event sender: order, a head that reads slowly or not at all, one send for an answer.
#include "causeway/worker/event_sender.h"

#include <sys/socket.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "causeway/device/host_bytes.h"
#include "causeway/net/frames.h"
#include "causeway/wire/control_codec.h"
#include "causeway/wire/control_frames.h"
#include "control.pb.h"
#include "gtest/gtest.h"

namespace causeway::worker {
namespace {

class EventSenderTest : public ::testing::Test {
 protected:
  EventSenderTest() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    head_ = net::Socket(ends[0]);
    sender_.Open(std::make_shared<net::Socket>(ends[1]));
  }
  // The events that have come: at least `least`, or all there are at the end of the stream.
  std::vector<control::Event> Read(size_t least) {
    std::vector<control::Event> events;
    while (events.size() < least) {
      const absl::Span<char> space = reader_.Space();
      const ssize_t size = ::recv(head_.fd(), space.data(), space.size(), 0);
      if (size <= 0) break;
      reader_.Received(static_cast<size_t>(size));
      while (true) {
        auto frame = reader_.Next();
        EXPECT_TRUE(frame.ok());
        if (!frame.ok() || !frame->has_value()) break;
        EXPECT_TRUE(events.emplace_back().ParseFromString(std::string((*frame)->payload)));
      }
    }
    return events;
  }
  bool NothingThere() {
    char byte;
    return ::recv(head_.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0;
  }

  net::Socket head_;
  net::FrameReader reader_{1 << 30};
  EventSender sender_;
};

TEST_F(EventSenderTest, ThreadsSendForEachOther) {
  constexpr uint64_t kEach = 500;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (uint64_t i = 0; i < kEach; ++i) sender_.Emit(Reply{.request = RequestId(t << 32 | i)});
    });
  }
  std::thread drain([this] { sender_.Drain(); });
  std::vector<uint64_t> next(4, 0);
  size_t came = 0;
  while (came < 4 * kEach) {
    for (const control::Event& event : Read(1)) {
      const uint64_t request = event.reply().request();
      EXPECT_EQ(request & 0xffffffff, next[request >> 32]++);
      ++came;
    }
  }
  for (std::thread& thread : threads) thread.join();
  sender_.Close();
  drain.join();
}

TEST_F(EventSenderTest, AHeadThatReadsLateGetsAllOfIt) {
  constexpr int kChunks = 40;
  const std::string chunk(1 << 20, 'c');
  const auto bytes = device::HostBytes(device::HostBlock::FromString(std::string(chunk)));
  // Nobody reads and nobody drains: no call may block.
  for (int i = 0; i < kChunks; ++i) {
    sender_.Emit(FetchData{RequestId(1), i, 0, bytes, static_cast<int64_t>(chunk.size())});
  }
  std::thread drain([this] { sender_.Drain(); });
  int next = 0;
  while (next < kChunks) {
    for (const control::Event& event : Read(1)) {
      ASSERT_EQ(event.fetch_data().device(), next++);
      ASSERT_TRUE(event.fetch_data().bytes() == chunk);
    }
  }
  sender_.Close();
  drain.join();
}

TEST_F(EventSenderTest, ASmallReadLeavesWithItsReply) {
  const auto bytes = device::HostBytes(device::HostBlock::FromString("abcd"));
  sender_.Emit(FetchData{RequestId(1), 0, 0, bytes, 4});
  EXPECT_TRUE(NothingThere());
  sender_.Emit(Reply{.request = RequestId(1)});
  const std::vector<control::Event> events = Read(2);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].fetch_data().bytes(), "abcd");
  EXPECT_EQ(events[1].reply().request(), 1u);
}

TEST_F(EventSenderTest, WhyItLeavesComesLast) {
  sender_.Emit(Reply{.request = RequestId(1)});
  sender_.End(absl::AbortedError("a hang"));
  std::string bytes(1 << 10, '\0');
  const ssize_t size = ::recv(head_.fd(), bytes.data(), bytes.size(), 0);
  ASSERT_GT(size, 0);
  const absl::Span<char> space = reader_.Space();
  std::memcpy(space.data(), bytes.data(), static_cast<size_t>(size));
  reader_.Received(static_cast<size_t>(size));
  const auto reply = reader_.Next(), end = reader_.Next();
  ASSERT_TRUE(reply.ok() && reply->has_value() && end.ok() && end->has_value());
  EXPECT_EQ((*reply)->kind, Kind(wire::ControlFrame::kMessage));
  EXPECT_EQ((*end)->kind, Kind(wire::ControlFrame::kEnd));
  EXPECT_EQ(wire::DecodeEnd((*end)->payload), absl::AbortedError("a hang"));
  EXPECT_TRUE(NothingThere());
}

TEST_F(EventSenderTest, AHeadThatIsGoneBlocksNobody) {
  const auto bytes =
      device::HostBytes(device::HostBlock::FromString(std::string(1 << 20, 'c')));
  std::thread drain([this] { sender_.Drain(); });
  for (int i = 0; i < 20; ++i) sender_.Emit(FetchData{RequestId(1), i, 0, bytes, 1 << 20});
  head_ = net::Socket();
  for (int i = 0; i < 20; ++i) sender_.Emit(FetchData{RequestId(1), i, 0, bytes, 1 << 20});
  sender_.Close();
  drain.join();
  sender_.Emit(Reply{.request = RequestId(2)});  // to nobody
}

}  // namespace
}  // namespace causeway::worker
