// Joins the controller's need for node ids and epochs with the coordination service.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "causeway/base/strong_id.h"
#include "causeway/controller/controller.h"
#include "causeway/coordination/coordination_service.h"
#include "causeway/coordination/topology.h"

namespace causeway {

// Thread safety: as its parts, which must outlive it.
class ClusterMembership : public controller::Membership {
 public:
  ClusterMembership(coordination::NodeIds& nodes, coordination::CoordinationService& service)
      : nodes_(nodes), service_(service) {}

  absl::StatusOr<int> NewNode(WorkerId worker) override {
    absl::StatusOr<int> node = nodes_.New(worker);
    if (node.ok()) service_.Begin(*node);
    return node;
  }
  void NewProcess(WorkerId worker) override { nodes_.NewProcess(worker); }
  int num_nodes() const override { return nodes_.num_nodes(); }
  void EpochChanged(EpochId epoch, const absl::Status& cause) override {
    service_.EndEpoch(cause);
  }

 private:
  coordination::NodeIds& nodes_;
  coordination::CoordinationService& service_;
};

}  // namespace causeway
