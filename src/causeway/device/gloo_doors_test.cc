// Tests of what breaks off gloo's waits: cut connections, and connections that nobody else makes.
#include "causeway/device/gloo_doors.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <set>
#include <vector>

#include "causeway/device/socket_abort.h"
#include "gtest/gtest.h"

namespace causeway::device {
namespace {

// What gloo's listening socket does: accepts, reads a number, and keeps the connection.
class Door {
 public:
  Door() : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(fd_, reinterpret_cast<const sockaddr*>(&any), sizeof(any)), 0);
    EXPECT_EQ(::listen(fd_, 512), 0);
  }
  ~Door() {
    for (const int fd : accepted_) ::close(fd);
    ::close(fd_);
  }
  int fd() const { return fd_; }
  int port() const {
    sockaddr_storage self{};
    socklen_t size = sizeof(self);
    EXPECT_EQ(::getsockname(fd_, reinterpret_cast<sockaddr*>(&self), &size), 0);
    return PortOf(self);
  }
  // The numbers of all who have come.
  std::vector<int64_t> Accept(int count) {
    std::vector<int64_t> numbers;
    for (int i = 0; i < count; ++i) {
      pollfd door{.fd = fd_, .events = POLLIN};
      if (::poll(&door, 1, 5000) != 1) break;
      accepted_.push_back(::accept(fd_, nullptr, nullptr));
      int64_t number = -1;
      EXPECT_EQ(::recv(accepted_.back(), &number, sizeof(number), MSG_WAITALL),
                static_cast<ssize_t>(sizeof(number)));
      numbers.push_back(number);
    }
    return numbers;
  }
  const std::vector<int>& accepted() const { return accepted_; }

 private:
  const int fd_;
  std::vector<int> accepted_;
};

std::vector<ListeningSocket> Only(int port) {
  std::vector<ListeningSocket> found = ListeningSockets();
  std::erase_if(found, [port](const ListeningSocket& s) { return s.port != port; });
  return found;
}

TEST(SocketAbort, ACutForReadingLetsWhatIsSentThrough) {
  Door door;
  const int near = ::socket(AF_INET, SOCK_STREAM, 0);
  const ListeningSocket at = Only(door.port()).at(0);
  ASSERT_EQ(::connect(near, reinterpret_cast<const sockaddr*>(&at.address), sizeof(at.address)), 0);
  const int64_t hello = 7;
  ASSERT_EQ(::send(near, &hello, sizeof(hello), 0), static_cast<ssize_t>(sizeof(hello)));
  ASSERT_EQ(door.Accept(1), std::vector<int64_t>{7});
  const int far = door.accepted().at(0);
  ASSERT_EQ(::send(far, "x", 1, 0), 1);
  const int port = door.port();
  auto cut_near = [port](Cut cut) {
    return ShutDownForeignConnections([port](int, int peer_port) { return peer_port != port; },
                                      cut);
  };
  EXPECT_EQ(cut_near(Cut::kReading), 1);
  char byte = 0;
  EXPECT_EQ(::recv(near, &byte, 1, 0), 1);  // what had come is there
  EXPECT_EQ(::recv(near, &byte, 1, 0), 0);
  EXPECT_EQ(::send(near, "y", 1, MSG_NOSIGNAL), 1);
  EXPECT_EQ(::recv(far, &byte, 1, 0), 1);
  EXPECT_EQ(byte, 'y');
  EXPECT_EQ(cut_near(Cut::kBoth), 1);
  EXPECT_EQ(::send(near, "z", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(::recv(far, &byte, 1, 0), 0);
  ::close(near);
}

TEST(GlooDoors, ListeningSocketsAreThoseThatListen) {
  Door door;
  const int other = ::socket(AF_INET, SOCK_STREAM, 0);
  std::set<int> ports;
  for (const ListeningSocket& socket : ListeningSockets()) ports.insert(socket.port);
  EXPECT_TRUE(ports.contains(door.port()));
  EXPECT_FALSE(ports.contains(0));
  ::close(other);
}

TEST(GlooDoors, EveryNumberComesOnceAndItsConnectionEnds) {
  Door door;
  GlooDoors doors(Only(door.port()));
  const int first = doors.Knock();
  ASSERT_GT(first, 0);
  std::vector<int64_t> numbers = door.Accept(first);
  const int second = doors.Knock();
  for (const int64_t number : door.Accept(second)) numbers.push_back(number);
  ASSERT_EQ(numbers.size(), static_cast<size_t>(first + second));
  for (size_t i = 0; i < numbers.size(); ++i) EXPECT_EQ(numbers[i], static_cast<int64_t>(i));
  for (const int fd : door.accepted()) {
    char byte;
    EXPECT_EQ(::recv(fd, &byte, 1, 0), 0) << "the connection is not over";
  }
}

TEST(GlooDoors, ACutLeavesWhatWasMadeHereItsAddresses) {
  Door door;
  GlooDoors doors(Only(door.port()));
  const int count = doors.Knock();
  ASSERT_EQ(door.Accept(count).size(), static_cast<size_t>(count));
  const int port = door.port();
  ShutDownForeignConnections([&](int local_port, int peer_port) {
    return local_port != port || doors.Made(peer_port);
  }, Cut::kBoth);
  for (const int fd : door.accepted()) {
    sockaddr_storage peer{};
    socklen_t size = sizeof(peer);
    EXPECT_EQ(::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size), 0);
    EXPECT_TRUE(doors.Made(PortOf(peer)));
    EXPECT_FALSE(doors.Made(port));
  }
}

TEST(GlooDoors, StopsAtALastNumberAndWhereNobodyListens) {
  Door door;
  GlooDoors doors(Only(door.port()));
  int total = 0;
  while (const int made = doors.Knock()) {
    total += made;
    ASSERT_EQ(door.Accept(made).size(), static_cast<size_t>(made));
  }
  // By the number of descriptors, or by the last number.
  EXPECT_GT(total, 0);
  EXPECT_LE(total, 4096);
  EXPECT_EQ(doors.Knock(), 0);
  std::vector<ListeningSocket> gone;
  {
    Door other;
    gone = Only(other.port());
  }
  ASSERT_EQ(gone.size(), 1u);
  EXPECT_EQ(GlooDoors(gone).Knock(), 0);
}

}  // namespace
}  // namespace causeway::device
