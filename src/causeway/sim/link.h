// The head's end of one worker's streams: what control_service does over sockets, over virtual time.
//
// Commands and bulk bytes leave through the head's own Outbox, one message at a time on each lane,
// as encoded bytes; events come in as encoded bytes.
#pragma once

#include <memory>
#include <string>

#include "causeway/controller/outbox.h"
#include "causeway/core/worker_link.h"
#include "causeway/sim/channel.h"
#include "causeway/sim/world.h"

namespace causeway::sim {

class Process;

class Link final : public core::WorkerLink, public std::enable_shared_from_this<Link> {
 public:
  Link(World& world, std::shared_ptr<Process> process);

  // ---- the worker's calls
  // The first event. The head's answer comes as commands, or as the end of the stream.
  void Hello(core::WorkerHello hello);
  void Event(std::string bytes);
  // The worker has opened its bulk stream.
  void BulkOpened();
  // The worker's process is gone.
  void Broken();

  // ---- core::WorkerLink
  void Send(std::shared_ptr<const std::string> command) override;
  void SendData(TransferId transfer, absl::StatusOr<absl::Cord> bytes) override;
  void Close(absl::string_view reason) override;
  int64_t queued_bytes() const override { return outbox_.queued_bytes(); }

 private:
  void Admit(const core::WorkerHello& hello);
  void Pump();
  // The head gives the process a place: the first command that is no question whether it lives.
  void Welcomed(const std::string& command);
  // True when a place became empty by it.
  bool Lost();
  void Detach(const std::string& why);

  World& world_;
  const std::weak_ptr<Process> process_;
  const int home_;
  int place_ = -1;      // in the cluster, once the head has told
  WorkerId said_;       // the number that the Hello gave
  controller::Outbox outbox_;
  Channel commands_, bulk_, events_;
  bool command_in_flight_ = false, bulk_in_flight_ = false;
  bool has_bulk_ = false;
  bool admitted_ = false, attached_ = false, closing_ = false, lost_ = false;
  Incarnation incarnation_;
};

}  // namespace causeway::sim
