// Tests of what gloo is told when a connection ends, and of how its calls come here.
#include "causeway/device/gloo_calls.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <vector>

#include "causeway/device/call_slots.h"
#include "gtest/gtest.h"

namespace causeway::device {
namespace {

constexpr size_t kHeader = 48;

// A connection with gloo's habits at its near end: it does not block, and the first bytes of every
// message go to the same place.
class GlooCalls : public ::testing::Test {
 protected:
  GlooCalls() {
    ::signal(SIGPIPE, SIG_IGN);  // as Python does
    const int door = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(at);
    EXPECT_EQ(::bind(door, reinterpret_cast<sockaddr*>(&at), sizeof(at)), 0);
    EXPECT_EQ(::listen(door, 1), 0);
    EXPECT_EQ(::getsockname(door, reinterpret_cast<sockaddr*>(&at), &size), 0);
    near_ = ::socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(::connect(near_, reinterpret_cast<sockaddr*>(&at), sizeof(at)), 0);
    far_ = ::accept(door, nullptr, nullptr);
    ::close(door);
    EXPECT_EQ(::fcntl(near_, F_SETFL, O_NONBLOCK), 0);
  }
  ~GlooCalls() override {
    GlooClose(near_);
    ::close(far_);
  }

  ssize_t Write(size_t size) {
    std::vector<char> bytes(size, 'm');
    const iovec parts[] = {{header_, kHeader}, {bytes.data(), size}};
    return GlooWritev(near_, parts, 2);
  }
  // Until the connection takes no more.
  void Fill() {
    while (Write(1 << 20) >= 0) {
    }
    ASSERT_EQ(errno, EAGAIN);
  }
  ssize_t ReadHeader() { return GlooRecv(near_, header_, kHeader, 0); }
  ssize_t ReadMessage() { return GlooRecv(near_, message_, sizeof(message_), 0); }
  // With something that it has not read, so that the near end gets a reset.
  void FarEndDies() {
    ::close(far_);
    pollfd end{.fd = near_, .events = POLLIN};
    ASSERT_EQ(::poll(&end, 1, 5000), 1);
  }
  void FarEndSends(size_t size) {
    std::vector<char> bytes(size, 'f');
    ASSERT_EQ(::send(far_, bytes.data(), size, 0), static_cast<ssize_t>(size));
    pollfd some{.fd = near_, .events = POLLIN};
    ASSERT_EQ(::poll(&some, 1, 5000), 1);
  }
  static bool IsOver(ssize_t got) { return got == 0 || (got < 0 && errno != EAGAIN); }

  int near_ = -1, far_ = -1;
  char header_[kHeader] = {};
  char message_[100] = {};
};

TEST_F(GlooCalls, WhatIsQueuedCountsAsSentBeforeGlooHearsOfTheEnd) {
  Fill();
  FarEndDies();
  EXPECT_EQ(ReadHeader(), -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(Write(500), static_cast<ssize_t>(kHeader + 500));
  EXPECT_TRUE(IsOver(ReadHeader()));
}

TEST_F(GlooCalls, WhatIsQueuedTowardsALivingPeerEndsWithACutForReading) {
  Fill();
  ASSERT_EQ(::shutdown(near_, SHUT_RD), 0);
  EXPECT_EQ(ReadHeader(), -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(Write(500), static_cast<ssize_t>(kHeader + 500));
  EXPECT_EQ(ReadHeader(), 0);
}

TEST_F(GlooCalls, AnAnswerToAPeerThatIsGoneCountsAsSent) {
  EXPECT_EQ(Write(500), static_cast<ssize_t>(kHeader + 500));
  FarEndDies();
  EXPECT_EQ(Write(500), static_cast<ssize_t>(kHeader + 500));
  EXPECT_EQ(Write(500), static_cast<ssize_t>(kHeader + 500));
  EXPECT_TRUE(IsOver(ReadHeader()));
}

TEST_F(GlooCalls, AMessageThatHasBegunIsMadeWholeAndKnownAsSpoiled) {
  const int64_t before = SpoiledMessages();
  EXPECT_EQ(Write(1), static_cast<ssize_t>(kHeader + 1));
  FarEndSends(kHeader + 10);
  EXPECT_EQ(ReadHeader(), static_cast<ssize_t>(kHeader));
  EXPECT_EQ(ReadMessage(), 10);
  EXPECT_EQ(ReadMessage(), -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(SpoiledMessages(), before);
  FarEndDies();
  EXPECT_EQ(ReadMessage(), static_cast<ssize_t>(sizeof(message_)));
  EXPECT_EQ(SpoiledMessages(), before + 1);
  EXPECT_TRUE(IsOver(ReadHeader()));
  EXPECT_EQ(SpoiledMessages(), before + 1);
}

TEST_F(GlooCalls, APartOfAHeaderIsNoMessage) {
  const int64_t before = SpoiledMessages();
  EXPECT_EQ(Write(1), static_cast<ssize_t>(kHeader + 1));
  FarEndSends(10);
  EXPECT_EQ(ReadHeader(), 10);
  FarEndDies();
  EXPECT_TRUE(IsOver(GlooRecv(near_, header_ + 10, kHeader - 10, 0)));
  EXPECT_EQ(SpoiledMessages(), before);
}

TEST_F(GlooCalls, ConnectionsOfOthersEndAsTheyDo) {
  FarEndSends(kHeader);
  EXPECT_EQ(ReadHeader(), static_cast<ssize_t>(kHeader));
  FarEndDies();
  EXPECT_EQ(ReadMessage(), 0);
}

TEST_F(GlooCalls, AClosedConnectionIsForgotten) {
  EXPECT_EQ(Write(1), static_cast<ssize_t>(kHeader + 1));
  EXPECT_EQ(ReadHeader(), -1);
  const int other = ::fcntl(near_, F_DUPFD_CLOEXEC, 0);
  ASSERT_EQ(GlooClose(near_), 0);
  ASSERT_EQ(::dup2(other, near_), near_);
  ::close(other);
  EXPECT_EQ(Write(1), static_cast<ssize_t>(kHeader + 1));
  FarEndDies();
  EXPECT_TRUE(IsOver(ReadMessage())) << "this is where its messages begin";
}

pid_t AnotherParent() { return 4711; }
// The compiler may keep the function's address for a second call.
[[gnu::noinline]] pid_t Parent() { return ::getppid(); }

TEST(CallSlots, TheProgramsOwnCallsAreReplacedAndNobodyElses) {
  ASSERT_NE(Parent(), AnotherParent());
  EXPECT_FALSE(ReplaceCalls("no-such-library.so", "getppid", nullptr));
  EXPECT_FALSE(ReplaceCalls("", "no_such_function", nullptr));
  ASSERT_TRUE(ReplaceCalls("", "getppid", reinterpret_cast<void*>(&AnotherParent)));
  EXPECT_EQ(Parent(), AnotherParent());
  ASSERT_TRUE(ReplaceCalls("", "getppid", reinterpret_cast<void*>(&::getppid)));
}

}  // namespace
}  // namespace causeway::device
