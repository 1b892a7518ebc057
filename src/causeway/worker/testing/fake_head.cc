// The recording control service behind FakeHead.
#include "causeway/worker/testing/fake_head.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <deque>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "control.grpc.pb.h"

namespace causeway::worker::testing {
namespace {
constexpr char kToken[] = "token-of-the-fake-head";
constexpr absl::Duration kPatience = absl::Seconds(60);
}  // namespace

class FakeHead::Service final : public control::WorkerControl::Service {
 public:
  using Stream = grpc::ServerReaderWriter<control::ToWorker, control::FromWorker>;
  struct Peer {
    Stream* stream = nullptr;
    Stream* bulk = nullptr;
    control::Hello hello;
    std::deque<control::Event> events;
  };

  grpc::Status Attach(grpc::ServerContext* context, Stream* stream) override {
    control::FromWorker message;
    if (!stream->Read(&message) || !message.events(0).has_hello()) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no hello");
    }
    const int worker = message.events(0).hello().worker();
    {
      absl::MutexLock lock(&mu);
      peers[worker] = Peer{stream, nullptr, message.events(0).hello(), {}};
      contexts.insert(context);
    }
    while (stream->Read(&message)) {
      absl::MutexLock lock(&mu);
      for (control::Event& event : *message.mutable_events()) {
        if (event.has_at_rendezvous()) {
          // Nobody waits for anybody here: the tests say when each worker launches.
          control::Command proceed;
          proceed.mutable_proceed()->set_epoch(event.at_rendezvous().epoch());
          proceed.mutable_proceed()->set_seq(event.at_rendezvous().seq());
          control::ToWorker go;
          go.add_commands(proceed.SerializeAsString());
          stream->Write(go);
          continue;
        }
        peers[worker].events.push_back(std::move(event));
      }
    }
    absl::MutexLock lock(&mu);
    if (peers[worker].stream == stream) peers[worker].stream = nullptr;
    contexts.erase(context);
    return grpc::Status::OK;
  }

  grpc::Status Bulk(grpc::ServerContext* context, Stream* stream) override {
    control::FromWorker message;
    if (!stream->Read(&message) || message.events(0).hello().token() != kToken) {
      return grpc::Status(grpc::StatusCode::PERMISSION_DENIED, "no token");
    }
    const int worker = message.events(0).hello().worker();
    {
      absl::MutexLock lock(&mu);
      peers[worker].bulk = stream;
      contexts.insert(context);
    }
    while (stream->Read(&message)) {
    }
    absl::MutexLock lock(&mu);
    if (peers[worker].bulk == stream) peers[worker].bulk = nullptr;
    contexts.erase(context);
    return grpc::Status::OK;
  }

  absl::Mutex mu;
  std::map<int, Peer> peers ABSL_GUARDED_BY(mu);
  std::set<grpc::ServerContext*> contexts ABSL_GUARDED_BY(mu);
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

FakeHead::FakeHead() : FakeHead(nullptr) {}

FakeHead::FakeHead(grpc::Service* beside) : service_(std::make_unique<Service>()) {
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &service_->port);
  builder.RegisterService(service_.get());
  if (beside != nullptr) builder.RegisterService(beside);
  service_->server = builder.BuildAndStart();
}

FakeHead::~FakeHead() {
  DropStreams();
  service_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
}

std::string FakeHead::address() const { return absl::StrCat("127.0.0.1:", service_->port); }

void FakeHead::DropStreams() {
  absl::MutexLock lock(&service_->mu);
  for (grpc::ServerContext* context : service_->contexts) context->TryCancel();
  service_->peers.clear();
}

absl::StatusOr<control::Hello> FakeHead::WaitAttached(int worker) {
  absl::MutexLock lock(&service_->mu);
  auto there = [&] {
    const auto it = service_->peers.find(worker);
    return it != service_->peers.end() && it->second.stream != nullptr;
  };
  if (!service_->mu.AwaitWithTimeout(absl::Condition(&there), kPatience)) {
    return absl::DeadlineExceededError(absl::StrCat("worker ", worker, " did not attach"));
  }
  return service_->peers[worker].hello;
}

bool FakeHead::WaitBulk(int worker) {
  absl::MutexLock lock(&service_->mu);
  auto there = [&] { return service_->peers[worker].bulk != nullptr; };
  return service_->mu.AwaitWithTimeout(absl::Condition(&there), kPatience);
}

void FakeHead::Send(int worker, const control::Command& command) {
  control::Command copy = command;
  if (copy.has_welcome()) {
    copy.mutable_welcome()->set_token(kToken);
    copy.mutable_welcome()->set_push_token("the cluster's secret");
  }
  control::ToWorker message;
  message.add_commands(copy.SerializeAsString());
  absl::MutexLock lock(&service_->mu);
  if (auto* stream = service_->peers[worker].stream; stream != nullptr) stream->Write(message);
}

void FakeHead::SendBulk(int worker, const control::Command& command) {
  control::ToWorker message;
  message.add_commands(command.SerializeAsString());
  absl::MutexLock lock(&service_->mu);
  if (auto* stream = service_->peers[worker].bulk; stream != nullptr) stream->Write(message);
}

absl::StatusOr<control::Event> FakeHead::WaitEvent(
    int worker, const std::function<bool(const control::Event&)>& match,
    absl::Duration timeout) {
  absl::MutexLock lock(&service_->mu);
  // Evaluated more than once: it may only look.
  auto there = [&] {
    const auto& events = service_->peers[worker].events;
    return std::any_of(events.begin(), events.end(), match);
  };
  if (!service_->mu.AwaitWithTimeout(absl::Condition(&there), timeout)) {
    return absl::DeadlineExceededError(absl::StrCat("no such event from worker ", worker));
  }
  auto& events = service_->peers[worker].events;
  const auto it = std::find_if(events.begin(), events.end(), match);
  control::Event found = std::move(*it);
  events.erase(it);
  return found;
}

absl::StatusOr<FakeHead::Answer> FakeHead::WaitReply(int worker, uint64_t request) {
  Answer answer;
  while (true) {
    auto event = WaitEvent(worker, [request](const control::Event& e) {
      return (e.has_reply() && e.reply().request() == request) ||
             (e.has_fetch_data() && e.fetch_data().request() == request);
    });
    if (!event.ok()) return event.status();
    if (event->has_reply()) {
      answer.reply = event->reply();
      return answer;
    }
    answer.data[event->fetch_data().device()] += event->fetch_data().bytes();
  }
}

}  // namespace causeway::worker::testing
