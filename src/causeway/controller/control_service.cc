// The listener for workers, and the table that joins their connections.
#include "causeway/controller/control_service.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/worker_connection.h"
#include "causeway/net/event_loop.h"
#include "causeway/net/local_sockets.h"
#include "causeway/net/sockets.h"

namespace causeway::controller {

namespace {

// How long the process goes without new connections when it has no descriptor for one.
constexpr absl::Duration kFullPause = absl::Milliseconds(100);

class Listener : public net::EventLoop::Handler, public std::enable_shared_from_this<Listener> {
 public:
  Listener(std::shared_ptr<WorkerDoor> door, net::Socket socket, bool same_user)
      : door_(std::move(door)), socket_(std::move(socket)), same_user_(same_user) {}

  void Start() {
    if (absl::Status added = door_->commands->Add(socket_.fd(), shared_from_this()); !added.ok()) {
      LOG(ERROR) << "no worker can attach: " << added;
    }
  }

  void OnReadable() override {
    absl::StatusOr<net::Socket> accepted = net::Accept(socket_.fd());
    if (!accepted.ok()) {
      if (absl::IsResourceExhausted(accepted.status())) Pause(accepted.status());
      return;
    }
    if (same_user_) {
      if (absl::Status same = net::CheckSameUser(accepted->fd()); !same.ok()) {
        LOG(WARNING) << "refused a worker's connection: " << same.message();
        return;
      }
    }
    {
      // A full house turns newcomers away; workers try again.
      absl::MutexLock lock(&door_->mu);
      if (door_->connections >= limits::kWorkerConnectionsMax) return;
    }
    auto connection = std::make_shared<WorkerConnection>(door_, *std::move(accepted));
    if (absl::Status started = connection->Start(); !started.ok()) LOG(WARNING) << started;
  }

 private:
  // The one who waits would be reported again and again.
  void Pause(const absl::Status& why) {
    LOG(WARNING) << "no worker can connect for now: " << why.message();
    door_->commands->Remove(socket_.fd());
    door_->timers->Schedule(kFullPause, [weak = weak_from_this(), door = door_] {
      absl::MutexLock lock(&door->mu);
      if (door->stopped) return;
      door->commands->Post([weak] {
        if (auto self = weak.lock()) self->Start();
      });
    });
  }

  const std::shared_ptr<WorkerDoor> door_;
  const net::Socket socket_;
  const bool same_user_;  // nobody else's processes are heard
};

}  // namespace

class ControlService::Impl {
 public:
  Impl(core::WorkerSink& sink, Timers& timers, DataOptions data, liveness::DeathWatch* deaths)
      : door_(std::make_shared<WorkerDoor>()) {
    door_->sink = &sink;
    door_->timers = &timers;
    door_->data.folder = data.folder;
    door_->data.checksums = data.checksums;
    if (data.folder != nullptr) door_->data.memory = SharedFolder::Identity();
    door_->deaths = deaths;
  }

  ~Impl() { Stop(absl::ZeroDuration()); }

  absl::Status Listen(const std::string& host, int port) {
    ASSIGN_OR_RETURN(net::Socket listener, net::Listen(host, port));
    port_ = net::LocalPort(listener.fd());
    ASSIGN_OR_RETURN(commands_, net::EventLoop::Start("control"));
    ASSIGN_OR_RETURN(bulk_, net::EventLoop::Start("bulk"));
    door_->commands = commands_.get();
    door_->bulk = bulk_.get();
    door_->writer = std::make_shared<CommandWriter>();
    if (absl::StatusOr<net::Socket> local = ListenLocal(); local.ok()) {
      StartListener(*std::move(local), /*same_user=*/true);
    } else {
      door_->local_socket = local.status();
    }
    StartListener(std::move(listener), /*same_user=*/false);
    return absl::OkStatus();
  }

  int port() const { return port_; }

  void Shutdown(const std::string& reason) {
    for (const auto& attachment : ShutDoor()) attachment->Close(reason);
  }

  void Stop(absl::Duration patience) {
    {
      absl::MutexLock lock(&door_->mu);
      auto ended = [this] {
        door_->mu.AssertHeld();
        return door_->connections == 0;
      };
      door_->mu.AwaitWithTimeout(absl::Condition(&ended), patience);
      door_->stopped = true;
    }
    // The controller may hold links for longer than the loops are there.
    for (const auto& attachment : ShutDoor()) {
      attachment->Ended(WorkerAttachment::Lane::kCommands, /*lost=*/true, absl::OkStatus());
    }
    if (door_->writer != nullptr) door_->writer->Stop();
    // Connections move from the first loop to the second.
    commands_ = nullptr;
    bulk_ = nullptr;
  }

  int num_attached() const {
    absl::MutexLock lock(&door_->mu);
    return static_cast<int>(door_->by_token.size());
  }

 private:
  // In the head's folder, which is its user's alone, and which no other head ever has.
  absl::StatusOr<net::Socket> ListenLocal() {
    RETURN_IF_ERROR(net::LocalSocketsAllowed());
    if (door_->data.folder == nullptr) {
      return absl::UnavailableError("the head has no shared memory");
    }
    std::string path = absl::StrCat(door_->data.folder->path(), "/workers");
    ASSIGN_OR_RETURN(net::Socket local, net::ListenLocal(path));
    door_->local_socket = std::move(path);
    return local;
  }

  void StartListener(net::Socket socket, bool same_user) {
    commands_->Post([listening = std::make_shared<Listener>(door_, std::move(socket), same_user)] {
      listening->Start();
    });
  }

  std::vector<std::shared_ptr<WorkerAttachment>> ShutDoor() {
    absl::MutexLock lock(&door_->mu);
    door_->shut_down = true;
    std::vector<std::shared_ptr<WorkerAttachment>> all;
    for (const auto& [token, attachment] : door_->by_token) all.push_back(attachment);
    return all;
  }

  const std::shared_ptr<WorkerDoor> door_;
  int port_ = 0;
  std::unique_ptr<net::EventLoop> commands_, bulk_;
};

ControlService::ControlService(core::WorkerSink& sink, Timers& timers, DataOptions data,
                               liveness::DeathWatch* deaths)
    : impl_(std::make_unique<Impl>(sink, timers, data, deaths)) {}

ControlService::~ControlService() = default;

absl::Status ControlService::Listen(const std::string& host, int port) {
  return impl_->Listen(host, port);
}
int ControlService::port() const { return impl_->port(); }
void ControlService::Shutdown(const std::string& reason) { impl_->Shutdown(reason); }
void ControlService::Stop(absl::Duration patience) { impl_->Stop(patience); }
int ControlService::num_attached() const { return impl_->num_attached(); }

}  // namespace causeway::controller
