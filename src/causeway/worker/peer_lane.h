// One connection of a PeerSender: a thread that writes frames, and one that reads the answers.
//
// The connection is opened when there is something to send, and again after it broke.
#pragma once

#include <string>
#include <thread>

#include "absl/status/status.h"
#include "causeway/net/sockets.h"
#include "causeway/worker/peer_sender.h"

namespace causeway::worker {

class PeerLane {
 public:
  // The sender must outlive the lane.
  PeerLane(PeerSender* sender, int index);
  // After Stop().
  ~PeerLane();
  // Breaks off what the lane is at; the sender's stop_ is set. Under the sender's lock.
  void Stop();
  // After Stop(): its threads are gone. Under the sender's lock.
  bool ended() const { return ended_; }

 private:
  void Loop();
  absl::Status Connect();
  absl::Status Send(const PeerSender::Work& work);
  absl::Status SendBatch(const PeerSender::BatchRef& batch);
  absl::Status SendPart(const PeerSender::Work& work);
  void ReadReplies(int fd);
  void Disconnect();

  PeerSender* const sender_;
  const int index_;
  net::Socket socket_;        // changed by the writing thread, under the sender's lock
  bool over_ = false;         // the reader has met the end; under the sender's lock
  absl::Status why_over_;     // as above
  bool ended_ = false;        // as above
  std::thread reader_;        // the writing thread's
  std::thread writer_;
};

}  // namespace causeway::worker
