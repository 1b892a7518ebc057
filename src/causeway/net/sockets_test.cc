// Tests of the socket helpers over loopback: whole blocks, ends, slow and missing peers.
#include "causeway/net/sockets.h"

#include <poll.h>
#include <sys/socket.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::net {
namespace {

using ::testing::HasSubstr;

struct Pair {
  Socket here, there;
};

Pair Connected() {
  auto listener = Listen("127.0.0.1", 0);
  EXPECT_TRUE(listener.ok()) << listener.status();
  auto here = Connect("127.0.0.1", LocalPort(listener->fd()));
  EXPECT_TRUE(here.ok()) << here.status();
  pollfd waiting{listener->fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&waiting, 1, 20'000), 1);
  auto there = Accept(listener->fd());
  EXPECT_TRUE(there.ok()) << there.status();
  return {*std::move(here), *std::move(there)};
}

TEST(Sockets, ManyPiecesArriveAsOneBlock) {
  Pair pair = Connected();
  // More pieces than one call of the kernel takes, and more bytes than its buffers hold.
  std::vector<std::string> parts;
  std::string all;
  for (int i = 0; i < 3000; ++i) {
    parts.push_back(std::string(static_cast<size_t>(i) * 7 % 9000, static_cast<char>('a' + i % 26)));
    all += parts.back();
  }
  std::thread sender([&] {
    std::vector<iovec> pieces;
    for (std::string& part : parts) pieces.push_back({part.data(), part.size()});
    EXPECT_TRUE(SendAll(pair.here.fd(), absl::MakeSpan(pieces)).ok());
  });
  std::string got(all.size(), '\0');
  EXPECT_TRUE(ReceiveAll(pair.there.fd(), got.data(), got.size()).ok());
  sender.join();
  EXPECT_TRUE(got == all);
  EXPECT_EQ(PeerName(pair.here.fd()), absl::StrCat("127.0.0.1:", LocalPort(pair.there.fd())));
}

TEST(Sockets, AnEndBetweenBlocksIsNoErrorOfTheConnection) {
  Pair pair = Connected();
  ASSERT_TRUE(SendAll(pair.here.fd(), "abc").ok());
  pair.here = Socket();
  char bytes[3];
  EXPECT_TRUE(ReceiveAll(pair.there.fd(), bytes, 3).ok());
  EXPECT_EQ(ReceiveAll(pair.there.fd(), bytes, 3).code(), absl::StatusCode::kOutOfRange);
}

TEST(Sockets, AnEndInsideABlockIs) {
  Pair pair = Connected();
  ASSERT_TRUE(SendAll(pair.here.fd(), "abc").ok());
  pair.here = Socket();
  char bytes[4];
  const absl::Status end = ReceiveAll(pair.there.fd(), bytes, 4);
  EXPECT_EQ(end.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(end.message()), HasSubstr("in the middle"));
}

TEST(Sockets, APeerThatTakesNothingIsWaitedForWithABound) {
  Pair pair = Connected();
  ASSERT_TRUE(SetTimeouts(pair.here.fd(), absl::Milliseconds(50), absl::Milliseconds(50)).ok());
  const std::string much(64 << 20, 'x');
  EXPECT_EQ(SendAll(pair.here.fd(), much).code(), absl::StatusCode::kDeadlineExceeded);
  char byte;
  EXPECT_EQ(ReceiveAll(pair.here.fd(), &byte, 1).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(Sockets, APeerThatIsGoneIsNoSignal) {
  Pair pair = Connected();
  pair.there = Socket();
  const std::string much(64 << 20, 'x');
  EXPECT_EQ(SendAll(pair.here.fd(), much).code(), absl::StatusCode::kUnavailable);
}

TEST(Sockets, NobodyListensIsToldWithTheAddress) {
  int port = 0;
  {
    auto listener = Listen("127.0.0.1", 0);
    ASSERT_TRUE(listener.ok());
    port = LocalPort(listener->fd());
    EXPECT_EQ(Accept(listener->fd()).status().code(), absl::StatusCode::kUnavailable);
  }
  const auto refused = Connect("127.0.0.1", port);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr(absl::StrCat("127.0.0.1:", port)));
}

TEST(Sockets, Addresses) {
  auto plain = ParseAddress("host.example:81");
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->host, "host.example");
  EXPECT_EQ(plain->port, 81);
  auto six = ParseAddress("[::1]:7");
  ASSERT_TRUE(six.ok());
  EXPECT_EQ(six->host, "::1");
  for (const char* wrong : {"", ":", "host", "host:", "host:x", ":80", "host:0", "host:65536"}) {
    EXPECT_EQ(ParseAddress(wrong).status().code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
}

}  // namespace
}  // namespace causeway::net
