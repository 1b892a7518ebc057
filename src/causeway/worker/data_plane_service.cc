// The data plane's gRPC server and its lazily made senders.
#include "causeway/worker/data_plane_service.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "causeway/base/log.h"
#include "causeway/worker/command_codec.h"
#include "control.grpc.pb.h"

namespace causeway::worker {
namespace {

int PortOf(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port)) return 0;
  return port;
}

}  // namespace

class DataPlane::Service final : public control::DataPlane::Service {
 public:
  explicit Service(DataPlane* plane) : plane_(plane) {}

  grpc::Status Push(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<control::PushReply, control::PushBatch>* stream) override {
    control::PushBatch batch;
    bool trusted = false;
    while (stream->Read(&batch)) {
      if (!trusted) {
        absl::MutexLock lock(&plane_->mu_);
        trusted = !plane_->token_.empty() && batch.token() == plane_->token_;
      }
      if (!trusted) {
        return grpc::Status(grpc::StatusCode::PERMISSION_DENIED,
                            "the sender does not know this cluster's token");
      }
      control::PushReply reply;
      for (control::Data& data : *batch.mutable_data()) {
        const uint64_t transfer = data.transfer();
        const TransferAssembler::Outcome outcome =
            plane_->options_.on_chunk(DecodeChunk(&data));
        if (outcome.complete) reply.add_done(transfer);
        if (outcome.refused.ok()) continue;
        control::PushProblem* problem = reply.add_problems();
        problem->set_transfer(transfer);
        problem->mutable_status()->set_code(static_cast<int>(outcome.refused.code()));
        problem->mutable_status()->set_message(std::string(outcome.refused.message()));
      }
      if (reply.done_size() + reply.problems_size() > 0 && !stream->Write(reply)) break;
    }
    return grpc::Status::OK;
  }

  std::unique_ptr<grpc::Server> server;

 private:
  DataPlane* const plane_;
};

DataPlane::DataPlane(Options options) : options_(std::move(options)) {
  auto folder = SharedFolder::Create();
  if (folder.ok()) memory_ = SharedFolder::Identity();
  if (memory_.empty()) {
    const absl::Status why =
        folder.ok() ? absl::UnavailableError("this machine does not say what it is")
                    : folder.status();
    stats_.FellBack("push", why);
    return;
  }
  folder_ = *std::move(folder);
  segments_ = std::make_unique<SegmentPool>(folder_.get(), SegmentPool::Limits());
}

absl::StatusOr<std::unique_ptr<DataPlane>> DataPlane::Start(Options options) {
  const int port = options.port;
  std::unique_ptr<DataPlane> plane(new DataPlane(std::move(options)));
  plane->service_ = std::make_unique<Service>(plane.get());
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
  std::map<std::string, std::unique_ptr<PeerSender>> peers;
  absl::MutexLock lock(&mu_);
  peers.swap(peers_);
}

void DataPlane::Configure(const std::string& token, bool checksums) {
  absl::MutexLock lock(&mu_);
  token_ = token;
  checksums_ = checksums;
}

void DataPlane::SetPeers(std::vector<std::string> addresses, std::vector<std::string> memories) {
  std::vector<std::unique_ptr<PeerSender>> gone;  // joined without the lock
  absl::MutexLock lock(&mu_);
  addresses_ = std::move(addresses);
  memories_ = std::move(memories);
  memories_.resize(addresses_.size());
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
  absl::ReleasableMutexLock lock(&mu_);
  const size_t index = static_cast<size_t>(to.value());
  if (index >= addresses_.size() || addresses_[index].empty()) {
    lock.Release();
    // Should the head know better, the receiver must not wait in vain.
    options_.on_failed(to, transfer,
                       absl::DataLossError(absl::StrCat("worker ", to.value(),
                                                        " was gone when bytes were sent to it")));
    return;
  }
  std::unique_ptr<PeerSender>& peer = peers_[addresses_[index]];
  if (peer == nullptr) {
    const bool shared = segments_ != nullptr && memories_[index] == memory_;
    peer = std::make_unique<PeerSender>(
        PeerSender::Options{.peer = to,
                            .address = addresses_[index],
                            .token = token_,
                            .segments = shared ? segments_.get() : nullptr,
                            .checksums = checksums_,
                            .damage_chunk = options_.damage_chunk,
                            .stats = &stats_},
        [this, to](TransferId id, absl::Status why) {
          options_.on_failed(to, id, std::move(why));
        });
    LOG(INFO) << "transfers to worker " << to << " at " << addresses_[index]
              << (shared ? " go through shared memory" : " go over the network");
  }
  peer->Push(transfer, std::move(bytes));
}

bool DataPlane::IsPeerPort(int port) const {
  absl::MutexLock lock(&mu_);
  return std::any_of(addresses_.begin(), addresses_.end(),
                     [port](const std::string& a) { return PortOf(a) == port; });
}

}  // namespace causeway::worker
