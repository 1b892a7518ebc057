// The threads of a worker and what passes between them.
#include "causeway/worker/worker.h"

#include <netdb.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <algorithm>
#include <cstdio>
#include <deque>
#include <thread>
#include <utility>
#include <variant>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "causeway/base/log.h"
#include "causeway/base/status_macros.h"
#include "causeway/base/thread_stacks.h"
#include "causeway/device/host_arrays.h"
#include "causeway/liveness/sentinel.h"
#include "causeway/worker/control_client.h"
#include "causeway/worker/data_plane.h"
#include "causeway/worker/machine.h"
#include "causeway/worker/operation_threads.h"
#include "causeway/worker/process_stats.h"
#include "causeway/worker/wait_pool.h"

namespace causeway::worker {
namespace {

constexpr int kCompileThreads = 2;
constexpr int kWaitThreads = 64;
constexpr absl::Duration kLifeStartMax = absl::Seconds(60);
constexpr absl::Duration kQuietCheck = absl::Milliseconds(20);
constexpr absl::Duration kStallWarning = absl::Seconds(10);
// Host programs (users' Python) that run at once; more of them wait.
constexpr int kHostProgramThreads = 64;
constexpr absl::Duration kHostProgramPatience = absl::Seconds(1);
// For the head to hear why this process ends, and to end the stream.
constexpr absl::Duration kFarewellMax = absl::Seconds(1);
// To look up the names in the stacks of what hangs.
constexpr absl::Duration kStacksMax = absl::Seconds(3);
constexpr absl::Duration kAbortInterval = absl::Milliseconds(5);

// One queue with one consumer thread.
template <class T>
class Mailbox {
 public:
  void Put(T item) {
    absl::MutexLock lock(&mu_);
    items_.push_back(std::move(item));
  }
  void Close() {
    absl::MutexLock lock(&mu_);
    closed_ = true;
  }
  // Everything that waits; empty after `timeout`. False once closed.
  bool Take(std::deque<T>* out, absl::Duration timeout) {
    out->clear();
    absl::MutexLock lock(&mu_);
    auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return closed_ || !items_.empty();
    };
    mu_.AwaitWithTimeout(absl::Condition(&ready), timeout);
    out->swap(items_);
    return !closed_;
  }

 private:
  absl::Mutex mu_;
  std::deque<T> items_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
};

void SplitAddress(const std::string& address, std::string* host, int* port) {
  const size_t colon = address.rfind(':');
  *host = address.substr(0, colon);
  *port = 0;
  if (colon != std::string::npos) (void)absl::SimpleAtoi(address.substr(colon + 1), port);
}

// The local address on the route to `head`.
std::string RouteTo(const std::string& head) {
  std::string host;
  int port = 0;
  SplitAddress(head, &host, &port);
  addrinfo hints{}, *found = nullptr;
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_DGRAM;
  std::string result = "127.0.0.1";
  if (::getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found) != 0) return result;
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in local{};
  socklen_t size = sizeof(local);
  char text[INET_ADDRSTRLEN] = "";
  if (fd >= 0 && ::connect(fd, found->ai_addr, found->ai_addrlen) == 0 &&
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size) == 0 &&
      ::inet_ntop(AF_INET, &local.sin_addr, text, sizeof(text)) != nullptr) {
    result = text;
  }
  if (fd >= 0) ::close(fd);
  ::freeaddrinfo(found);
  return result;
}

class Worker final : public MachineHost {
 public:
  explicit Worker(const WorkerOptions& options) : options_(options) {}

  absl::Status Run(const DeviceFactory& make_device);
  // Whether threads of users' programs outlive Run().
  bool users_code_is_stuck() const { return users_code_is_stuck_; }

  // MachineHost.
  void Watch(std::shared_ptr<LaunchRecord> record) override {
    const bool multi = record->seq != LaunchSeq(0);
    if (!multi && record->ordinals.size() > 1) ++local_collectives_;
    (multi ? multi_watch_ : local_watch_).Put(std::move(record));
  }
  void AwaitBytes(std::unique_ptr<device::HostCopy> copy,
                  absl::AnyInvocable<void(absl::StatusOr<device::HostShard>)> done) override {
    waits_.Submit([copy = std::move(copy), done = std::move(done)]() mutable {
      auto shard = copy->Await();
      copy = nullptr;
      done(std::move(shard));
    });
  }
  void AwaitArrays(std::vector<device::ArrayRef> arrays,
                   absl::AnyInvocable<void(absl::Status)> done) override {
    waits_.Submit([this, arrays = std::move(arrays), done = std::move(done)]() mutable {
      done(device_->AwaitReady(arrays));
    });
  }
  void Post(absl::AnyInvocable<void()> work) override { operations_->Post(std::move(work)); }
  void Emit(Event event) override { client_->Emit(std::move(event)); }
  void Push(WorkerId to, TransferId transfer,
            absl::StatusOr<device::HostBytes> bytes) override {
    data_plane_->Push(to, transfer, std::move(bytes));
  }
  void RunBlocking(absl::AnyInvocable<void()> work) override {
    host_pool_.Submit(std::move(work));
  }
  void Moved(const char* kind, const char* path, int64_t bytes, absl::Duration spent) override {
    data_plane_->stats().Done(kind, path, bytes, spent);
  }
  absl::Time Now() override { return absl::Now(); }
  void RunAside(absl::AnyInvocable<void()> work) override {
    compiles_pool_.Submit(std::move(work));
  }
  bool AsideIdle() override {
    return waits_.WaitIdle(absl::ZeroDuration()) && compiles_pool_.WaitIdle(absl::ZeroDuration());
  }
  void CutCollectives() override {
    if (!aborting_.exchange(true)) aborts_.Put(0);
  }
  void SetPeers(const NodeMap& nodes) override {
    data_plane_->SetPeers(nodes.data_addresses, nodes.memories);
  }
  void CountTransfers(Pong* pong) override {
    pong->transfers = data_plane_->stats().Numbers();
    pong->transfer_fallback = data_plane_->stats().last_cause();
  }
  void OnWelcome(const Welcome& welcome) override;
  void OnLifeStarted() override {
    absl::MutexLock lock(&mu_);
    life_started_ = true;
  }
  ProcessStats ReadStats() override { return ReadProcessStats(); }
  void GiveUp(const std::string& why) override {
    LOG(ERROR) << "this process ends: " << why;
    End();
  }
  void Leave(const std::string& why) override {
    LOG(ERROR) << "this process ends: " << why;
    leaving_ = true;
    client_->Leave(absl::AbortedError(why));
    std::thread([this] {
      LOG(ERROR) << "what hangs may be seen here: " << ThreadStacks(kStacksMax);
      head_knows_.WaitForNotificationWithTimeout(kFarewellMax);
      End();
    }).detach();
  }

 private:
  // With no destructor: what hangs would hold them.
  [[noreturn]] static void End() {
    std::fflush(nullptr);
    ::_exit(1);
  }
  void OnCommand(Command command);
  void OnConnected(const HeadConnection& connection);
  void WarnIfStalled() const;
  void RunOperation(absl::AnyInvocable<void()>& work);
  void WatchLoop(Mailbox<std::shared_ptr<LaunchRecord>>* records);
  void AbortLoop();
  bool IsOurs(int local_port, int peer_port) const;

  const WorkerOptions options_;
  std::unique_ptr<device::Device> device_;
  std::unique_ptr<ControlClient> client_;
  std::unique_ptr<Machine> machine_;
  std::unique_ptr<DataPlane> data_plane_;  // tells the machine of its failures
  std::unique_ptr<OperationThreads> operations_;
  Mailbox<std::shared_ptr<LaunchRecord>> multi_watch_, local_watch_;
  Mailbox<int> aborts_;
  std::atomic<bool> aborting_{false}, leaving_{false};
  absl::Notification head_knows_;  // that this process leaves
  std::atomic<int> head_port_{0}, coordinator_port_{0}, callbacks_port_{0};
  // Since when the operation lane is at one thing (Unix microseconds, 0 = idle).
  std::atomic<int64_t> busy_since_{0};
  std::atomic<int> local_collectives_{0};  // one-worker launches on several devices, in flight
  absl::Mutex mu_;
  bool life_started_ ABSL_GUARDED_BY(mu_) = false;

  // Last, so that their threads end before what they use.
  WaitPool waits_{kWaitThreads};
  WaitPool compiles_pool_{kCompileThreads};
  WaitPool host_pool_{kHostProgramThreads};
  bool users_code_is_stuck_ = false;
};

bool Worker::IsOurs(int local_port, int peer_port) const {
  return peer_port == head_port_ || local_port == head_port_ || peer_port == coordinator_port_ ||
         local_port == coordinator_port_ ||
         (callbacks_port_ != 0 && peer_port == callbacks_port_) ||
         local_port == data_plane_->port() || peer_port == data_plane_->port() ||
         data_plane_->IsPeerPort(peer_port);
}

absl::Status Worker::Run(const DeviceFactory& make_device) {
  std::string host;
  int port = 0;
  SplitAddress(options_.head, &host, &port);
  head_port_ = port;
  DataPlane::Options plane;
  plane.port = options_.data_port;
  plane.damage_chunk = options_.faults.damage_chunk;
  // The machine is there by then: a peer has to know our token.
  plane.assembler = [this]() -> TransferAssembler& { return machine_->assembler(); };
  plane.on_failed = [this](WorkerId to, TransferId id, absl::Status why) {
    machine_->OnSendFailed(to, id, std::move(why));
  };
  ASSIGN_OR_RETURN(data_plane_, DataPlane::Start(std::move(plane)));
  ASSIGN_OR_RETURN(std::unique_ptr<device::Device> made,
                   make_device([this](int local, int peer) { return IsOurs(local, peer); }));
  device_ = device::WithHostArrays(std::move(made));
  machine_ = std::make_unique<Machine>(
      MachineOptions{.worker = options_.worker, .faults = options_.faults}, device_.get(), this);
  ASSIGN_OR_RETURN(operations_, OperationThreads::Start(
                                    {.run = [this](auto& work) { RunOperation(work); },
                                     .idle = [this] { device_->Idle(); },
                                     .tick = [this] { machine_->Tick(); }}));
  char name[256] = "";
  (void)::gethostname(name, sizeof(name) - 1);
  const std::string reach = options_.host.empty() ? RouteTo(options_.head) : options_.host;
  client_ = std::make_unique<ControlClient>(
      ControlClient::Options{
          .head = options_.head,
          .hello = {.worker = WorkerId(options_.worker),
                    .pid = ::getpid(),
                    .host = name,
                    .data_address = absl::StrCat(reach, ":", data_plane_->port()),
                    .device = device_->info(),
                    .memory = data_plane_->memory(),
                    .spare = options_.spare},
          .connect_timeout = options_.connect_timeout,
          .reattach_timeout = options_.reattach_timeout},
      operations_.get(), [this](Command command) { OnCommand(std::move(command)); },
      [this](const HeadConnection& connection) { OnConnected(connection); });
  std::thread multi([this] { WatchLoop(&multi_watch_); });
  std::thread local([this] { WatchLoop(&local_watch_); });
  std::thread aborter([this] { AbortLoop(); });
  const absl::Status end = client_->Run();
  if (leaving_) {
    head_knows_.Notify();
    absl::SleepFor(absl::InfiniteDuration());  // the thread that Leave() began ends the process
  }
  // Waits on dead peers must end before the threads can be joined.
  machine_->Stop();
  operations_->Stop();
  multi_watch_.Close();
  local_watch_.Close();
  multi.join();
  local.join();
  aborts_.Close();
  aborter.join();
  users_code_is_stuck_ = !host_pool_.WaitIdle(kHostProgramPatience);
  return end;
}

void Worker::OnWelcome(const Welcome& welcome) {
  data_plane_->Configure(welcome.push_token, welcome.checksums);
  std::string host;
  int port = 0;
  SplitAddress(welcome.coordinator, &host, &port);
  coordinator_port_ = port;
  SplitAddress(welcome.callbacks, &host, &port);
  callbacks_port_ = port;
  if (options_.spare) SetLogRole(absl::StrCat("worker ", welcome.worker.value()).c_str());
  if (!welcome.sentinel.empty()) liveness::StartSentinel(welcome.sentinel, welcome.token);
  LOG(INFO) << "attached as worker " << welcome.worker << ", life " << welcome.incarnation;
}

void Worker::OnConnected(const HeadConnection& connection) {
  TransferStats& stats = data_plane_->stats();
  stats.Count(connection.local.empty() ? "head_connections_tcp" : "head_connections_unix");
  if (connection.fell_back) stats.CountFallback("head", connection.why_tcp);
  if (connection.local.empty()) {
    LOG(INFO) << "connected to the head at " << options_.head
              << " over TCP: " << connection.why_tcp.message();
  } else {
    LOG(INFO) << "connected to the head at " << options_.head << " through " << connection.local;
  }
}

void Worker::WarnIfStalled() const {
  const int64_t since = busy_since_;
  const absl::Duration busy =
      since == 0 ? absl::ZeroDuration() : absl::Now() - absl::FromUnixMicros(since);
  if (busy <= kStallWarning) return;
  LOG(WARNING) << "the operation lane has been inside " << machine_->doing() << " for "
               << absl::FormatDuration(absl::Trunc(busy, absl::Seconds(1))) << " ("
               << machine_->ledger().inflight() << " gang launches in flight)";
}

void Worker::OnCommand(Command command) {
  if (std::holds_alternative<Ping>(command)) WarnIfStalled();
  const bool welcome = std::holds_alternative<Welcome>(command);
  if (welcome) {
    absl::MutexLock lock(&mu_);
    life_started_ = false;
  }
  machine_->OnCommand(std::move(command));
  if (!welcome) return;
  operations_->RunElsewhere();
  absl::MutexLock lock(&mu_);
  if (!mu_.AwaitWithTimeout(absl::Condition(&life_started_), kLifeStartMax)) {
    GiveUp("what an earlier head left here does not end; start this worker anew");
  }
}

// A launch that was on its way at the first cut may open new connections: cut until all is quiet.
void Worker::AbortLoop() {
  std::deque<int> requests;
  while (aborts_.Take(&requests, absl::Hours(1))) {
    if (requests.empty()) continue;
    aborting_ = false;
    // Programs on this host's own devices share the fate of what is cut: let them end if they can.
    for (absl::Duration spent; local_collectives_ > 0 && spent < kAbortInterval;
         spent += absl::Milliseconds(1)) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    // Never once the launches to break off have ended: the next epoch may be open already.
    while (machine_->ledger().broken_inflight() > 0) {
      device_->AbortCollectives();
      machine_->ledger().WaitIdle(kAbortInterval);
    }
  }
}

void Worker::RunOperation(absl::AnyInvocable<void()>& work) {
  busy_since_ = absl::ToUnixMicros(absl::Now());
  work();
  work = nullptr;
  while (const auto until = machine_->waiting_until()) {
    // The ledger wakes this thread; what else is waited for is looked at again soon.
    while (!machine_->Quiet() && absl::Now() < *until) {
      machine_->ledger().WaitIdle(std::min(*until - absl::Now(), kQuietCheck));
      if (machine_->ledger().inflight() == 0 && !machine_->Quiet()) {
        absl::SleepFor(absl::Milliseconds(1));
      }
    }
    machine_->EndWait();
  }
  busy_since_ = 0;
}

void Worker::WatchLoop(Mailbox<std::shared_ptr<LaunchRecord>>* records) {
  std::deque<std::shared_ptr<LaunchRecord>> batch;
  bool open = true;
  while (open) {
    open = records->Take(&batch, absl::Hours(1));
    for (std::shared_ptr<LaunchRecord>& record : batch) {
      const absl::Status status =
          record->completion == nullptr ? absl::OkStatus() : record->completion->Await();
      record->completion = nullptr;
      if (record->seq == LaunchSeq(0) && record->ordinals.size() > 1) --local_collectives_;
      machine_->Completed(record, status);
      record = nullptr;
    }
  }
}

}  // namespace

absl::Status RunWorker(const WorkerOptions& options, const DeviceFactory& make_device) {
  auto worker = std::make_unique<Worker>(options);
  const absl::Status end = worker->Run(make_device);
  // A user's code may never return; the process ends without it, so what it uses has to stay.
  if (worker->users_code_is_stuck()) (void)worker.release();
  return end;
}

}  // namespace causeway::worker
