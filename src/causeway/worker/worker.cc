// The threads of a worker and what passes between them.
#include "causeway/worker/worker.h"

#include <netdb.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
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
#include "causeway/worker/control_client.h"
#include "causeway/worker/data_plane_service.h"
#include "causeway/worker/launch_ledger.h"
#include "causeway/worker/op_graph.h"
#include "causeway/worker/process_stats.h"
#include "causeway/worker/transfer_assembler.h"
#include "causeway/worker/wait_pool.h"

namespace causeway::worker {
namespace {

constexpr int kCompileThreads = 2;
constexpr int kWaitThreads = 64;
constexpr absl::Duration kResetPatience = absl::Seconds(20);
constexpr absl::Duration kStallWarning = absl::Seconds(10);
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
  bool empty() {
    absl::MutexLock lock(&mu_);
    return items_.empty();
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

// What a command is called in the log.
template <class T>
constexpr const char* kNameOf = "a command";
template <>
constexpr const char* kNameOf<Build> = "Build";
template <>
constexpr const char* kNameOf<Send> = "Send";
template <>
constexpr const char* kNameOf<Fetch> = "Fetch";
template <>
constexpr const char* kNameOf<Bind> = "Bind";
template <>
constexpr const char* kNameOf<Launch> = "Launch";
template <>
constexpr const char* kNameOf<Proceed> = "Proceed";

class Worker final : public GraphHost {
 public:
  explicit Worker(const WorkerOptions& options)
      : options_(options),
        ledger_([this](Event event) { Emit(std::move(event)); }),
        assembler_([this](TransferId id, absl::StatusOr<device::HostBytes> bytes,
                          std::vector<int64_t> strides) {
          Post([this, id, bytes = std::move(bytes), strides = std::move(strides)]() mutable {
            if (graph_ != nullptr) {
              graph_->TransferArrived(id, std::move(bytes), std::move(strides));
            }
          });
        }) {}

  absl::Status Run(const DeviceFactory& make_device);

  // GraphHost.
  void Watch(std::shared_ptr<LaunchRecord> record) override {
    if (record->seq == LaunchSeq(0) && record->ordinals.size() > 1) ++local_collectives_;
    (record->seq != LaunchSeq(0) ? multi_watch_ : local_watch_).Put(std::move(record));
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
  void Post(absl::AnyInvocable<void()> work) override { operations_.Put(std::move(work)); }
  void Emit(Event event) override {
    if (client_ != nullptr && !muted_) client_->Emit(std::move(event));
  }
  void Push(WorkerId to, TransferId transfer,
            absl::StatusOr<device::HostBytes> bytes) override {
    if (to == WorkerId(options_.worker)) {
      Post([this, transfer, bytes = std::move(bytes)]() mutable {
        graph_->TransferArrived(transfer, std::move(bytes), {});
      });
      return;
    }
    data_plane_->Push(to, transfer, std::move(bytes));
  }
  absl::Time Now() override { return absl::Now(); }

 private:
  void OnCommand(Command command);
  void On(Welcome welcome);
  void On(AbortEpoch abort);
  void On(Compile compile);
  void On(Introspect introspect);
  void On(Ping ping);
  void On(Chunk chunk) { assembler_.Add(std::move(chunk)); }
  void On(Shutdown shutdown) { LOG(INFO) << "shutdown: " << shutdown.reason; }
  void On(OpenEpoch open) {
    // By the reader, as SetNodes does: a newcomer's address must not be lost to an older list that
    // the operation thread comes to later.
    data_plane_->SetPeers(open.nodes.data_addresses);
    Post([this, open = std::move(open)] { OpenTheEpoch(open); });
  }
  void On(SetNodes nodes) {
    data_plane_->SetPeers(nodes.nodes.data_addresses);
    Post([this, nodes = std::move(nodes)] { graph_->Run(nodes); });
  }
  template <class T>
  void On(T command) {
    Post([this, command = std::move(command)]() mutable {
      doing_ = kNameOf<T>;
      if (graph_ != nullptr) graph_->Run(std::move(command));
    });
  }

  void StartLife(const Welcome& welcome);
  void OpenTheEpoch(const OpenEpoch& open);
  void OperationLoop();
  void WatchLoop(Mailbox<std::shared_ptr<LaunchRecord>>* records);
  void AbortLoop();
  void StartAborting();
  bool IsOurs(int local_port, int peer_port) const;

  const WorkerOptions options_;
  std::unique_ptr<device::Device> device_;
  std::unique_ptr<DataPlane> data_plane_;
  std::unique_ptr<ControlClient> client_;
  LaunchLedger ledger_;
  TransferAssembler assembler_;
  Mailbox<absl::AnyInvocable<void()>> operations_;
  Mailbox<std::shared_ptr<LaunchRecord>> multi_watch_, local_watch_;
  Mailbox<int> aborts_;
  std::atomic<bool> aborting_{false};
  std::atomic<bool> muted_{false};  // events of an older life must not reach the head
  std::atomic<uint64_t> aborted_by_head_{0};
  std::atomic<uint64_t> life_{0};  // the incarnation that the head gave last
  std::atomic<int> head_port_{0}, coordinator_port_{0}, callbacks_port_{0};
  std::atomic<int64_t> compiles_{0};
  // What the operation thread is at, and since when (Unix microseconds, 0 = idle).
  std::atomic<const char*> doing_{""};
  std::atomic<int64_t> busy_since_{0};
  std::atomic<int> local_collectives_{0};  // one-worker launches on several devices, in flight

  // The operation thread's.
  std::unique_ptr<OpGraph> graph_;
  Welcome welcome_;
  std::atomic<int64_t> buffers_{0}, buffer_bytes_{0}, loads_{0}, launches_{0};

  // Last, so that their threads end before what they use.
  WaitPool waits_{kWaitThreads};
  WaitPool compiles_pool_{kCompileThreads};
};

bool Worker::IsOurs(int local_port, int peer_port) const {
  return peer_port == head_port_ || local_port == head_port_ || peer_port == coordinator_port_ ||
         local_port == coordinator_port_ || (callbacks_port_ != 0 && peer_port == callbacks_port_) || local_port == data_plane_->port() ||
         peer_port == data_plane_->port() || data_plane_->IsPeerPort(peer_port);
}

absl::Status Worker::Run(const DeviceFactory& make_device) {
  std::string host;
  int port = 0;
  SplitAddress(options_.head, &host, &port);
  head_port_ = port;
  ASSIGN_OR_RETURN(data_plane_, DataPlane::Start(options_.data_port, [this](Chunk chunk) {
                     assembler_.Add(std::move(chunk));
                   }));
  ASSIGN_OR_RETURN(device_,
                   make_device([this](int local, int peer) { return IsOurs(local, peer); }));
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
                    .device = device_->info()},
          .connect_timeout = options_.connect_timeout,
          .reattach_timeout = options_.reattach_timeout},
      [this](Command command) { OnCommand(std::move(command)); });
  std::thread operations([this] { OperationLoop(); });
  std::thread multi([this] { WatchLoop(&multi_watch_); });
  std::thread local([this] { WatchLoop(&local_watch_); });
  std::thread aborter([this] { AbortLoop(); });
  const absl::Status end = client_->Run();
  // Waits on dead peers must end before the threads can be joined.
  ledger_.Abort(EpochId(~uint64_t{0}), absl::CancelledError("the worker is shutting down"));
  StartAborting();
  operations_.Close();
  multi_watch_.Close();
  local_watch_.Close();
  operations.join();
  multi.join();
  local.join();
  aborts_.Close();
  aborter.join();
  return end;
}

void Worker::OnCommand(Command command) {
  std::visit([this](auto&& c) { On(std::move(c)); }, std::move(command));
}

void Worker::On(Welcome welcome) {
  data_plane_->SetToken(welcome.push_token);
  std::string host;
  int port = 0;
  SplitAddress(welcome.coordinator, &host, &port);
  coordinator_port_ = port;
  SplitAddress(welcome.callbacks, &host, &port);
  callbacks_port_ = port;
  LOG(INFO) << "attached as worker " << welcome.worker << ", life " << welcome.incarnation;
  // The reader waits, so that no command of the new life meets what is left of the old one.
  // A collective of the old life may hold the operation thread.
  if (life_.exchange(welcome.incarnation.value()) != welcome.incarnation.value()) {
    ledger_.Abort(EpochId(~uint64_t{0}), absl::DataLossError("the head forgot this worker"));
    StartAborting();
  }
  absl::Notification started;
  Post([&] {
    StartLife(welcome);
    started.Notify();
  });
  if (!started.WaitForNotificationWithTimeout(3 * kResetPatience)) {
    LOG(FATAL) << "what an earlier head left here does not end; start this worker anew";
  }
}

void Worker::StartLife(const Welcome& welcome) {
  if (graph_ != nullptr && welcome.incarnation == welcome_.incarnation) return;
  if (graph_ != nullptr) {
    muted_ = true;
    if (!ledger_.WaitIdle(kResetPatience) || !waits_.WaitIdle(kResetPatience) ||
        !compiles_pool_.WaitIdle(kResetPatience) ||
        welcome.devices_per_host != welcome_.devices_per_host) {
      LOG(FATAL) << "what an earlier head left here cannot be cleared; start this worker anew";
    }
    graph_->Reset();
    aborted_by_head_ = 0;
    muted_ = false;
  }
  ledger_.Reset();
  welcome_ = welcome;
  if (graph_ != nullptr) return;
  graph_ = std::make_unique<OpGraph>(
      device_.get(), this, &ledger_,
      GraphOptions{.worker = options_.worker,
                   .devices_per_host = std::max(1, welcome_.devices_per_host),
                   .max_inflight_multi =
                       welcome_.max_inflight_launches > 0 ? welcome_.max_inflight_launches : 8,
                   .faults = options_.faults});
}

void Worker::On(AbortEpoch abort) {
  ledger_.Abort(abort.epoch, abort.cause);
  aborted_by_head_ = std::max(aborted_by_head_.load(), abort.epoch.value());
  StartAborting();
  Post([this, abort = std::move(abort)] {
    if (graph_ != nullptr) graph_->DropParkedLaunches(abort.epoch, abort.cause);
  });
}

void Worker::StartAborting() {
  if (!aborting_.exchange(true)) aborts_.Put(0);
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
    device_->AbortCollectives();
    while (!ledger_.WaitIdle(kAbortInterval)) device_->AbortCollectives();
  }
}

void Worker::On(Compile compile) {
  compiles_pool_.Submit([this, compile = std::move(compile)] {
    auto compiled = device_->Compile(compile.what);
    ++compiles_;
    Reply reply{.request = compile.request, .status = compiled.status()};
    if (compiled.ok()) reply.compiled = *std::move(compiled);
    Emit(std::move(reply));
  });
}

void Worker::On(Introspect introspect) {
  // The program is looked up in stream order; the work is done beside it.
  Post([this, introspect = std::move(introspect)] {
    auto source = graph_->FindProgram(introspect.program);
    compiles_pool_.Submit([this, introspect, source] {
      Reply reply{.request = introspect.request};
      if (source == nullptr) {
        reply.status = absl::FailedPreconditionError(
            absl::StrCat("program ", introspect.program.value(), " is not on this worker"));
      } else {
        auto found = device_->Introspect(*source, introspect.what);
        reply.status = found.status();
        if (found.ok()) {
          reply.text = std::move(found->text);
          reply.numbers = std::move(found->numbers);
        }
      }
      Emit(std::move(reply));
    });
  });
}

void Worker::On(Ping ping) {
  const ProcessStats process = ReadProcessStats();
  const int64_t since = busy_since_;
  const absl::Duration busy =
      since == 0 ? absl::ZeroDuration() : absl::Now() - absl::FromUnixMicros(since);
  if (busy > kStallWarning) {
    LOG(WARNING) << "the operation thread has been inside " << doing_.load() << " for "
                 << absl::FormatDuration(absl::Trunc(busy, absl::Seconds(1))) << " ("
                 << ledger_.inflight() << " gang launches in flight)";
  }
  Emit(Pong{.number = ping.number,
            .inflight = ledger_.inflight(),
            .resident_bytes = process.resident_bytes,
            .buffers = buffers_,
            .buffer_bytes = buffer_bytes_,
            .open_files = process.open_files,
            .threads = process.threads,
            .compiles = compiles_,
            .loads = loads_,
            .launches = launches_});
  Post([this] {
    if (graph_ == nullptr) return;
    const OpGraph::Stats stats = graph_->stats();
    buffers_ = stats.buffers;
    buffer_bytes_ = stats.buffer_bytes;
    loads_ = stats.loads;
    launches_ = stats.launches;
  });
}

void Worker::OpenTheEpoch(const OpenEpoch& open) {
  const absl::Time start = absl::Now();
  const absl::Duration bound = absl::Milliseconds(std::max<uint64_t>(1, open.drain_ms));
  graph_->CloseEpochs(open.epoch);
  bool idle;
  if (aborted_by_head_ + 1 >= open.epoch.value()) {
    idle = ledger_.WaitIdle(bound);
  } else {
    // Nothing was broken off: give running launches a chance before they are.
    idle = ledger_.WaitIdle(bound / 2);
    if (!idle) {
      StartAborting();
      idle = ledger_.WaitIdle(bound / 2);
    }
  }
  const absl::Duration drained = absl::Now() - start;
  EpochOpened opened;
  if (idle) {
    opened = graph_->OpenEpoch(open, {.epoch = open.epoch.value(),
                                      .node = open.node,
                                      .coordinator = welcome_.coordinator,
                                      .callbacks = welcome_.callbacks,
                                      .num_nodes = welcome_.num_nodes,
                                      .worker = options_.worker,
                                      .devices_per_host = welcome_.devices_per_host});
  } else {
    opened.epoch = open.epoch;
    opened.status = absl::DeadlineExceededError(
        absl::StrCat(ledger_.inflight(), " launches of the older epoch did not end within ",
                     absl::FormatDuration(bound), "; restart this worker"));
  }
  opened.drain_us = static_cast<uint64_t>(absl::ToInt64Microseconds(drained));
  Emit(std::move(opened));
}

void Worker::OperationLoop() {
  std::deque<absl::AnyInvocable<void()>> work;
  absl::Time next_tick = absl::Now() + absl::Seconds(1);
  while (operations_.Take(&work, absl::Seconds(1))) {
    for (auto& item : work) {
      busy_since_ = absl::ToUnixMicros(absl::Now());
      doing_ = "a result";
      item();
      item = nullptr;  // releases what it holds before the next one runs
    }
    busy_since_ = 0;
    if (graph_ != nullptr && absl::Now() >= next_tick) {
      graph_->Tick();
      next_tick = absl::Now() + absl::Seconds(1);
    }
    if (operations_.empty()) device_->Idle();
  }
}

void Worker::WatchLoop(Mailbox<std::shared_ptr<LaunchRecord>>* records) {
  std::deque<std::shared_ptr<LaunchRecord>> batch;
  bool open = true;
  while (open) {
    open = records->Take(&batch, absl::Hours(1));
    for (std::shared_ptr<LaunchRecord>& record : batch) {
      const absl::Status status = record->completion->Await();
      record->completion = nullptr;
      if (record->seq == LaunchSeq(0) && record->ordinals.size() > 1) --local_collectives_;
      if (record->seq != LaunchSeq(0)) ledger_.Complete(record->epoch, record->seq, status);
      Post([this, record, status] {
        if (graph_ != nullptr) graph_->LaunchFinished(record, status);
      });
      record = nullptr;
    }
  }
}

}  // namespace

absl::Status RunWorker(const WorkerOptions& options, const DeviceFactory& make_device) {
  return Worker(options).Run(make_device);
}

}  // namespace causeway::worker
