// Hosts without devices: speak the control stream to a real head and compute nothing.
//
// Every launch is confirmed as soon as it is read, every value is a zero of four bytes. A program
// has as many outputs as its name says ("..._outputs_3"), all of them replicated float32 scalars.
//
// Thread safety: the loop's thread serves all hosts; the methods are thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "causeway/net/event_loop.h"
#include "causeway/net/frames.h"
#include "causeway/net/sockets.h"
#include "control.pb.h"

namespace causeway::bench {

class EmulatedHost : public net::EventLoop::Handler,
                     public std::enable_shared_from_this<EmulatedHost> {
 public:
  // Connects with a connection of its own, as a real host does.
  static absl::StatusOr<std::shared_ptr<EmulatedHost>> Start(net::EventLoop& loop,
                                                             const std::string& head, int worker);
  EmulatedHost(net::EventLoop& loop, net::Socket socket);

  // Asks for the end; Wait returns soon after.
  void Stop();
  // Blocks until the connection is over.
  void Wait() { over_.WaitForNotification(); }
  int64_t launches() const { return launches_; }

 private:
  void OnReadable() override;
  void OnWritable() override;
  // Adds the answers to answers_.
  void Handle(const control::Command& command);
  void Confirm(const control::Launch& launch);
  void Answer(const control::Event& event);
  void Reply(uint64_t request);
  void Send();

  net::EventLoop& loop_;
  const net::Socket socket_;
  net::FrameReader reader_;
  control::Command command_;
  std::string answers_;   // frames
  bool waiting_ = false;  // for room in the socket
  // The confirmation of the last launch read, not yet in answers_.
  control::Event confirmation_;
  std::atomic<int64_t> launches_{0};
  absl::Notification over_;
};

}  // namespace causeway::bench
