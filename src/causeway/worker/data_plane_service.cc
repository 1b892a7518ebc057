// The data plane's gRPC server and its lazily made clients.
#include "causeway/worker/data_plane_service.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "causeway/base/log.h"
#include "causeway/worker/command_codec.h"
#include "control.grpc.pb.h"

namespace causeway::worker {
namespace {

constexpr int64_t kChunkBytes = 1 << 20;

int PortOf(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port)) return 0;
  return port;
}

}  // namespace

class DataPlane::Service final : public control::DataPlane::Service {
 public:
  Service(DataPlane* plane, OnChunk on_chunk) : plane_(plane), on_chunk_(std::move(on_chunk)) {}

  grpc::Status Push(grpc::ServerContext* context, grpc::ServerReader<control::Data>* reader,
                    control::PushReply* reply) override {
    control::Data data;
    bool trusted = false;
    while (reader->Read(&data)) {
      Chunk chunk = DecodeChunk(&data);
      if (!trusted) {
        absl::MutexLock lock(&plane_->mu_);
        trusted = !plane_->token_.empty() && chunk.token == plane_->token_;
      }
      if (!trusted) {
        return grpc::Status(grpc::StatusCode::PERMISSION_DENIED,
                            "the sender does not know this cluster's token");
      }
      on_chunk_(std::move(chunk));
    }
    return grpc::Status::OK;
  }

  std::unique_ptr<grpc::Server> server;

 private:
  DataPlane* const plane_;
  const OnChunk on_chunk_;
};

// One peer's outgoing queue with a thread and a stream of its own.
class DataPlane::Peer {
 public:
  Peer(std::string address, std::string token)
      : address_(std::move(address)), token_(std::move(token)), thread_([this] { Loop(); }) {}

  ~Peer() {
    {
      absl::MutexLock lock(&mu_);
      stop_ = true;
      if (context_ != nullptr) context_->TryCancel();
    }
    thread_.join();
  }

  void Push(TransferId transfer, absl::StatusOr<device::HostBytes> bytes) {
    absl::MutexLock lock(&mu_);
    queue_.push_back({transfer, std::move(bytes)});
  }

 private:
  struct Item {
    TransferId transfer;
    absl::StatusOr<device::HostBytes> bytes;
  };

  void Loop() {
    while (true) {
      Item item;
      {
        absl::MutexLock lock(&mu_);
        auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
          return stop_ || !queue_.empty();
        };
        mu_.Await(absl::Condition(&ready));
        if (stop_) break;
        item = std::move(queue_.front());
        queue_.pop_front();
      }
      // A stream that idled may have been cut: one fresh attempt, from the first byte.
      if (!Write(item) && !Write(item)) {
        LOG(WARNING) << "transfer " << item.transfer << " to " << address_
                     << " could not be sent: the peer is gone";
      }
    }
    Close();
  }

  void Close() {
    if (writer_ == nullptr) return;
    writer_->WritesDone();
    (void)writer_->Finish();
    writer_ = nullptr;
  }

  bool Open() {
    if (writer_ != nullptr) return true;
    grpc::ChannelArguments arguments;
    arguments.SetMaxSendMessageSize(-1);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    channel_ = grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), arguments);
    stub_ = control::DataPlane::NewStub(channel_);
    auto context = std::make_unique<grpc::ClientContext>();
    {
      absl::MutexLock lock(&mu_);
      if (stop_) return false;
      context_ = std::move(context);
    }
    writer_ = stub_->Push(context_.get(), &reply_);
    fresh_ = true;
    return writer_ != nullptr;
  }

  bool Write(const Item& item) {
    if (!Open()) return false;
    const char* bytes = item.bytes.ok() ? (*item.bytes)->data() : nullptr;
    const int64_t total = item.bytes.ok() ? static_cast<int64_t>((*item.bytes)->size()) : 0;
    int64_t offset = 0;
    do {
      control::Data data;
      data.set_transfer(item.transfer.value());
      data.set_offset(offset);
      data.set_total(total);
      const int64_t size = std::min(kChunkBytes, total - offset);
      if (item.bytes.ok()) {
        data.set_bytes(bytes + offset, static_cast<size_t>(size));
        data.set_has_checksum(true);
        data.set_checksum(XXH3_64bits(bytes + offset, static_cast<size_t>(size)));
      } else {
        data.mutable_error()->set_code(static_cast<int>(item.bytes.status().code()));
        data.mutable_error()->set_message(std::string(item.bytes.status().message()));
      }
      if (std::exchange(fresh_, false)) data.set_token(token_);
      if (!writer_->Write(data)) {
        (void)writer_->Finish();
        writer_ = nullptr;
        return false;
      }
      offset += size;
    } while (offset < total);
    return true;
  }

  const std::string address_;
  const std::string token_;
  // Touched by the thread only.
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<control::DataPlane::Stub> stub_;
  std::unique_ptr<grpc::ClientWriter<control::Data>> writer_;
  control::PushReply reply_;
  bool fresh_ = true;

  absl::Mutex mu_;
  std::deque<Item> queue_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::unique_ptr<grpc::ClientContext> context_;  // replaced under mu_
  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<DataPlane>> DataPlane::Start(int port, OnChunk on_chunk) {
  std::unique_ptr<DataPlane> plane(new DataPlane);
  plane->service_ = std::make_unique<Service>(plane.get(), std::move(on_chunk));
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(-1);
  int bound = 0;
  builder.AddListeningPort(absl::StrCat("0.0.0.0:", port), grpc::InsecureServerCredentials(),
                           &bound);
  builder.RegisterService(plane->service_.get());
  plane->service_->server = builder.BuildAndStart();
  if (plane->service_->server == nullptr || bound == 0) {
    return absl::UnavailableError(
        absl::StrCat("the data port ", port, " is taken; choose another one or 0"));
  }
  plane->port_ = bound;
  return plane;
}

DataPlane::~DataPlane() {
  if (service_ != nullptr && service_->server != nullptr) {
    service_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  }
}

void DataPlane::SetToken(const std::string& token) {
  absl::MutexLock lock(&mu_);
  token_ = token;
}

void DataPlane::SetPeers(std::vector<std::string> addresses) {
  std::vector<std::unique_ptr<Peer>> gone;  // joined without the lock
  absl::MutexLock lock(&mu_);
  addresses_ = std::move(addresses);
  for (auto it = peers_.begin(); it != peers_.end();) {
    if (std::find(addresses_.begin(), addresses_.end(), it->first) == addresses_.end()) {
      gone.push_back(std::move(it->second));
      it = peers_.erase(it);
    } else {
      ++it;
    }
  }
}

void DataPlane::Push(WorkerId to, TransferId transfer, absl::StatusOr<device::HostBytes> bytes) {
  absl::MutexLock lock(&mu_);
  const size_t index = static_cast<size_t>(to.value());
  if (index >= addresses_.size() || addresses_[index].empty()) {
    LOG(DEBUG) << "transfer " << transfer << " is dropped: worker " << to << " is gone";
    return;
  }
  std::unique_ptr<Peer>& peer = peers_[addresses_[index]];
  if (peer == nullptr) peer = std::make_unique<Peer>(addresses_[index], token_);
  peer->Push(transfer, std::move(bytes));
}

bool DataPlane::IsPeerPort(int port) const {
  absl::MutexLock lock(&mu_);
  return std::any_of(addresses_.begin(), addresses_.end(),
                     [port](const std::string& a) { return PortOf(a) == port; });
}

}  // namespace causeway::worker
