// Attach and Bulk over gRPC, with events batched into messages.
#include "causeway/worker/control_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <thread>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "causeway/base/log.h"
#include "causeway/worker/command_codec.h"
#include "control.grpc.pb.h"

namespace causeway::worker {
namespace {

constexpr int64_t kMaxMessageBytes = 2 << 20;
constexpr int kMaxMessageEvents = 512;

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

int64_t WeightOf(const Event& event) {
  const auto* data = std::get_if<FetchData>(&event);
  return data != nullptr ? data->size + 64 : 256;
}

// Reads uploads until the stream ends.
void ServeBulk(control::WorkerControl::Stub* stub, grpc::ClientContext* context,
               const Hello& hello, const ControlClient::OnCommand& on_command) {
  auto stream = stub->Bulk(context);
  control::FromWorker first;
  EncodeEvent(hello, first.add_events());
  if (!stream->Write(first)) return;
  control::ToWorker message;
  while (stream->Read(&message)) {
    for (const std::string& bytes : message.commands()) {
      auto command = DecodeCommand(bytes);
      if (!command.ok() || !std::holds_alternative<Chunk>(*command)) {
        LOG(ERROR) << "the bulk stream carried something else than data";
        continue;
      }
      on_command(*std::move(command));
    }
  }
  (void)stream->Finish();
}

}  // namespace

ControlClient::ControlClient(Options options, OnCommand on_command)
    : options_(std::move(options)), on_command_(std::move(on_command)) {}

absl::Status ControlClient::Serve(bool* attached) {
  auto channel = MakeChannel(options_.head);
  if (!channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(1))) {
    return absl::UnavailableError("nobody listens");
  }
  auto stub = control::WorkerControl::NewStub(channel);
  grpc::ClientContext context;
  auto stream = stub->Attach(&context);
  control::FromWorker first;
  EncodeEvent(options_.hello, first.add_events());
  if (!stream->Write(first)) {
    const grpc::Status end = stream->Finish();
    return absl::Status(static_cast<absl::StatusCode>(end.error_code()), end.error_message());
  }
  events_.Open();
  std::thread writer([this, &stream] {
    std::deque<Event> events;
    while (events_.Take(&events)) {
      while (!events.empty()) {
        control::FromWorker message;
        int64_t weight = 0;
        while (!events.empty() && weight < kMaxMessageBytes &&
               message.events_size() < kMaxMessageEvents) {
          weight += WeightOf(events.front());
          EncodeEvent(events.front(), message.add_events());
          events.pop_front();
        }
        if (!stream->Write(message)) return;
      }
    }
  });
  grpc::ClientContext bulk_context;
  std::thread bulk;
  control::ToWorker message;
  while (!shutdown_ && stream->Read(&message)) {
    for (const std::string& bytes : message.commands()) {
      auto command = DecodeCommand(bytes);
      if (!command.ok()) {
        LOG(ERROR) << "a command is dropped: " << command.status();
        continue;
      }
      if (const auto* welcome = std::get_if<Welcome>(&*command); welcome != nullptr) {
        *attached = true;
        options_.hello.worker = welcome->worker;  // a spare's place, from now on
        Hello hello = options_.hello;
        hello.token = welcome->token;
        if (!bulk.joinable()) {
          bulk = std::thread([this, &stub, &bulk_context, hello] {
            ServeBulk(stub.get(), &bulk_context, hello, on_command_);
          });
        }
      }
      const bool stop = std::holds_alternative<Shutdown>(*command);
      on_command_(*std::move(command));
      if (stop) shutdown_ = true;
    }
  }
  events_.Close();
  bulk_context.TryCancel();
  if (shutdown_) context.TryCancel();
  writer.join();
  if (bulk.joinable()) bulk.join();
  const grpc::Status end = stream->Finish();
  if (shutdown_) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(end.error_code()),
                      end.ok() ? "the head closed the stream" : end.error_message());
}

absl::Status ControlClient::Run() {
  absl::Time lost = absl::Now();
  absl::Duration patience = options_.connect_timeout;
  while (true) {
    bool attached = false;
    const absl::Status status = Serve(&attached);
    if (shutdown_) return absl::OkStatus();
    if (attached) {
      LOG(WARNING) << "lost the head at " << options_.head << " (" << status.message()
                   << "); buffers are kept while looking for it";
      lost = absl::Now();
      patience = options_.reattach_timeout;
    } else if (status.code() == absl::StatusCode::kFailedPrecondition ||
               status.code() == absl::StatusCode::kInvalidArgument ||
               status.code() == absl::StatusCode::kPermissionDenied ||
               status.code() == absl::StatusCode::kUnimplemented) {
      return status;
    }
    if (absl::Now() - lost > patience) {
      return absl::UnavailableError(absl::StrCat("the head at ", options_.head,
                                                 " cannot be reached for ",
                                                 absl::FormatDuration(patience), ": ",
                                                 std::string(status.message())));
    }
    absl::SleepFor(absl::Milliseconds(200));
  }
}

}  // namespace causeway::worker
