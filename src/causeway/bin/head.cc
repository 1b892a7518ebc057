// Starts the head's parts from the inside out, and stops them from the outside in.
#include "causeway/bin/head.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "causeway/base/status_macros.h"

namespace causeway {
namespace {

coordination::TopologyOptions Topology(const HeadOptions& options) {
  coordination::TopologyOptions topology;
  topology.shape = options.shape;
  topology.incarnations_per_worker = options.incarnations_per_worker;
  return topology;
}

std::string ProxyMetrics(const proxy::Stats& stats) {
  std::string text;
  auto family = [&text](const char* name, const char* type, uint64_t value) {
    absl::StrAppend(&text, "# TYPE causeway_proxy_", name, " ", type, "\ncauseway_proxy_", name,
                    " ", value, "\n");
  };
  family("sessions_open", "gauge", stats.sessions_open);
  family("sessions_opened_total", "counter", stats.sessions_opened);
  family("failed_requests_total", "counter", stats.failed_requests);
  family("stores_total", "counter", stats.stores);
  family("store_bytes_total", "counter", stats.store_bytes);
  family("lookups_total", "counter", stats.lookups);
  family("lookup_bytes_total", "counter", stats.lookup_bytes);
  family("disk_reads_total", "counter", stats.disk_reads);
  family("disk_read_bytes_total", "counter", stats.disk_read_bytes);
  absl::StrAppend(&text, "# TYPE causeway_proxy_requests_total counter\n");
  for (const auto& [kind, count] : stats.requests) {
    absl::StrAppend(&text, "causeway_proxy_requests_total{kind=\"", kind, "\"} ", count, "\n");
  }
  return text;
}

}  // namespace

Head::Head(const HeadOptions& options)
    : options_(options),
      coordination_(timers_, random_),
      nodes_(Topology(options)),
      membership_(nodes_, coordination_) {}

Head::~Head() { Stop("the head ends"); }

absl::StatusOr<std::unique_ptr<Head>> Head::Start(const HeadOptions& options,
                                                  std::function<void()> on_shutdown) {
  std::unique_ptr<Head> head(new Head(options));
  RETURN_IF_ERROR(head->StartAll(std::move(on_shutdown)));
  return head;
}

proxy::Options Head::ProxyOptions() {
  proxy::Options options;
  options.large_transfer_directory = options_.shared_dir;
  if (options_.ifrt_protocol_max != 0) options.max_protocol = options_.ifrt_protocol_max;
  // Half of the machine's memory for one client is enough.
  const int64_t half = int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGESIZE) / 2;
  if (half > 0) options.max_bytes_per_session = std::min(options.max_bytes_per_session, half);
  options.client_attributes["causeway_callback_port"] = int64_t{callbacks_->port()};
  options.client_attributes["causeway_ops_port"] = int64_t{ops_port_};
  options.admit = [this](const proxy::Hello&) -> absl::Status {
    // What clients left that were killed.
    if (shared_ != nullptr) (void)SharedFolder::Sweep();
    if (was_complete_ || controller_->Complete()) {
      was_complete_ = true;
      return absl::OkStatus();
    }
    return absl::UnavailableError(absl::StrCat(
        "the cluster is not complete yet: some of its ", options_.shape.num_workers(),
        " workers have not joined. Connect again when they have; `causeway status` shows them"));
  };
  return options;
}

absl::Status Head::StartAll(std::function<void()> on_shutdown) {
  RETURN_IF_ERROR(coordination_.PublishTopology(Topology(options_)));
  // Workers hear of the coordinator from the controller, so its port must be known before the
  // controller exists: it has a server of its own.
  rendezvous_.builder.RegisterService(coordination_.service());
  RETURN_IF_ERROR(rendezvous_.Start(options_.host, options_.coordinator_port));

  controller::ControllerOptions controller_options;
  controller_options.shape = options_.shape;
  controller_options.heartbeat = options_.heartbeat;
  controller_options.drain_max = options_.drain_max;
  ASSIGN_OR_RETURN(callbacks_, callbacks::Relay::Start({.host = options_.host}));
  if (auto shared = SharedFolder::Create(); shared.ok()) {
    shared_ = *std::move(shared);
    controller_options.memory = SharedFolder::Identity();
  } else {
    LOG(WARNING) << "no shared memory for large arrays (they take the network): "
                 << shared.status().message();
  }
  controller_options.transfer_checksums = options_.transfer_checksums;
  controller_options.callbacks = absl::StrCat(options_.advertised_host, ":", callbacks_->port());
  controller_options.callbacks_gone = [relay = callbacks_.get()](const std::string& token,
                                                                 uint64_t group) {
    relay->ProgramGone(token, group);
  };
  ASSIGN_OR_RETURN(deaths_, liveness::DeathWatch::Start(options_.host));
  controller_options.sentinel = absl::StrCat(options_.advertised_host, ":", deaths_->port());
  controller_options.coordinator =
      absl::StrCat(options_.advertised_host, ":", rendezvous_.port());
  controller_options.max_program_bytes = options_.program_memory_bytes;
  if (!options_.compile_cache.empty()) {
    compile_cache_ = std::make_unique<controller::DiskCompileCache>(controller::ProgramFiles(
        options_.compile_cache, options_.compile_cache_bytes, files_, clock_));
    controller_options.compile_cache = compile_cache_.get();
  }
  controller_ = std::make_unique<controller::Controller>(controller_options, membership_, clock_,
                                                         timers_, random_);
  control_ = std::make_unique<controller::ControlService>(
      *controller_, timers_,
      controller::DataOptions{.folder = shared_.get(), .checksums = options_.transfer_checksums},
      deaths_.get());

  ops::OpsServer::Options ops_options;
  ops_options.host = options_.host;
  ops_options.port = options_.ops_port;
  ops_options.log_id = random_.Token();
  ops_options.on_shutdown = std::move(on_shutdown);
  ops_ = std::make_unique<ops::OpsServer>(std::move(ops_options), *controller_);
  // Clients are told the port of operations, so that one serves before they are.
  ops_->AddMetrics([this] {
    proxy::Proxy* const proxy = counted_proxy_;
    return proxy == nullptr ? std::string() : ProxyMetrics(proxy->GetStats());
  });
  ASSIGN_OR_RETURN(ops_port_, ops_->Start());
  proxy_ = std::make_unique<proxy::Proxy>(*controller_, ProxyOptions());
  counted_proxy_ = proxy_.get();

  if (absl::Status listens = control_->Listen(options_.host, options_.server_port);
      !listens.ok()) {
    return absl::UnavailableError(absl::StrCat(
        listens.message(), ": workers need a port; choose another --server-port (0 = any free one), "
        "or end the other process"));
  }
  proxy_->Register(clients_.builder);
  if (shared_ != nullptr) clients_.ListenBeside(absl::StrCat(shared_->path(), "/clients"));
  RETURN_IF_ERROR(clients_.Start(options_.host, options_.proxy_port));
  if (shared_ != nullptr) {
    // By this, clients know that the port is served by a process which sees their memory, and that
    // they reach by the socket beside it, too.
    const absl::Status marked = files_.WriteAtomically(
        absl::StrCat(shared_->path(), "/head-", clients_.port()), "");
    if (!marked.ok()) LOG(WARNING) << "clients will not share memory: " << marked.message();
  }
  return absl::OkStatus();
}

void Head::Stop(const std::string& reason) {
  if (std::exchange(stopped_, true)) return;
  const absl::Time deadline = absl::Now() + absl::Seconds(limits::kHeadShutdownSecondsMax) / 2;
  const absl::Time soon = absl::Now() + absl::Milliseconds(limits::kServerGraceMs);
  if (proxy_ != nullptr) {
    const absl::Status ended = proxy_->Shutdown(soon);
    if (!ended.ok()) LOG(WARNING) << "sessions did not end in time: " << ended.message();
  }
  clients_.Shutdown(deadline);
  if (controller_ != nullptr) controller_->Shutdown(reason);
  if (control_ != nullptr) control_->Shutdown(reason);
  // Its answers go to the controller, which must be there.
  if (compile_cache_ != nullptr) compile_cache_->Stop();
  if (control_ != nullptr) control_->Stop(deadline - absl::Now());
  deaths_ = nullptr;
  coordination_.Shutdown();
  rendezvous_.Shutdown(deadline);
  if (ops_ != nullptr) ops_->Stop();
}

}  // namespace causeway
