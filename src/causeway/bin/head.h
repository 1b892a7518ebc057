// The head as one object: every server, wired to one controller.
//
// Thread safety: Start and Stop from one thread; the rest is the parts' own.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "causeway/base/clock.h"
#include "causeway/base/file_system.h"
#include "causeway/base/random.h"
#include "causeway/base/shared_memory.h"
#include "causeway/base/timers.h"
#include "causeway/bin/cluster_membership.h"
#include "causeway/bin/grpc_server.h"
#include "causeway/bin/head_options.h"
#include "causeway/callbacks/relay.h"
#include "causeway/controller/compile_cache.h"
#include "causeway/controller/control_service.h"
#include "causeway/controller/controller.h"
#include "causeway/coordination/coordination_service.h"
#include "causeway/coordination/topology.h"
#include "causeway/liveness/death_watch.h"
#include "causeway/ops/ops_server.h"
#include "causeway/proxy/proxy.h"

namespace causeway {

class Head {
 public:
  // Serves when it returns OK. `on_shutdown` is called when an operator asks for the end.
  static absl::StatusOr<std::unique_ptr<Head>> Start(const HeadOptions& options,
                                                     std::function<void()> on_shutdown);
  ~Head();
  Head(const Head&) = delete;
  Head& operator=(const Head&) = delete;

  // Ends sessions, workers and servers, in that order and within limits::kHeadShutdownSecondsMax.
  void Stop(const std::string& reason);

  int proxy_port() const { return clients_.port(); }
  int server_port() const { return control_->port(); }
  int ops_port() const { return ops_port_; }
  controller::Controller& controller() { return *controller_; }

 private:
  explicit Head(const HeadOptions& options);
  absl::Status StartAll(std::function<void()> on_shutdown);
  proxy::Options ProxyOptions();

  const HeadOptions options_;
  RealClock clock_;
  RealFileSystem files_;
  std::unique_ptr<SharedFolder> shared_;  // null: this machine has no memory to share
  RealTimers timers_;
  SystemRandom random_;
  coordination::CoordinationService coordination_;
  coordination::NodeIds nodes_;
  ClusterMembership membership_;
  std::unique_ptr<callbacks::Relay> callbacks_;
  std::unique_ptr<controller::DiskCompileCache> compile_cache_;
  std::unique_ptr<controller::Controller> controller_;
  std::unique_ptr<liveness::DeathWatch> deaths_;  // reports to the controller
  std::unique_ptr<controller::ControlService> control_;
  std::unique_ptr<proxy::Proxy> proxy_;
  std::unique_ptr<ops::OpsServer> ops_;
  std::atomic<proxy::Proxy*> counted_proxy_{nullptr};  // proxy_ once it is there
  GrpcServer rendezvous_{"the workers' coordination", "--coordinator-port"};
  GrpcServer clients_{"JAX clients", "--proxy-port"};
  int ops_port_ = 0;
  // Clients may come once every worker has been there; what is lost later is told by values.
  std::atomic<bool> was_complete_{false};
  bool stopped_ = false;
};

}  // namespace causeway
