// The data plane's server and its lazily made senders.
#include "causeway/worker/data_plane.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "causeway/base/status_macros.h"
#include "causeway/net/sockets.h"

namespace causeway::worker {
namespace {

// Between the head's telling others of this worker and its telling this worker.
constexpr absl::Duration kWelcomeWait = absl::Seconds(10);

int PortOf(const std::string& address) {
  const auto parsed = net::ParseAddress(address);
  return parsed.ok() ? parsed->port : 0;
}

// One connection keeps a processor busy at either end.
int LanesFor(int wanted) {
  if (wanted > 0) return wanted;
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 2, 1,
                    limits::kPushLanesMax);
}

}  // namespace

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
  std::unique_ptr<DataPlane> plane(new DataPlane(std::move(options)));
  auto trusts = [raw = plane.get()](const std::string& token) {
    // Peers may learn this address before the head's welcome is here.
    absl::MutexLock lock(&raw->mu_);
    auto decided = [raw] {
      raw->mu_.AssertHeld();
      return !raw->token_.empty() || raw->closing_;
    };
    raw->mu_.AwaitWithTimeout(absl::Condition(&decided), kWelcomeWait);
    return !raw->token_.empty() && raw->token_ == token;
  };
  ASSIGN_OR_RETURN(plane->server_, PeerServer::Start({.port = plane->options_.port,
                                                      .trusts = std::move(trusts),
                                                      .assembler = plane->options_.assembler}));
  return plane;
}

DataPlane::~DataPlane() {
  std::map<std::string, std::unique_ptr<PeerSender>> peers;  // joined without the lock
  absl::MutexLock lock(&mu_);
  closing_ = true;
  peers.swap(peers_);
  senders_.clear();
  addresses_.clear();
}

void DataPlane::Configure(const std::string& token, bool checksums) {
  absl::MutexLock lock(&mu_);
  token_ = token;
  checksums_ = checksums;
}

void DataPlane::SetPeers(std::vector<std::string> addresses, std::vector<std::string> memories) {
  std::vector<std::unique_ptr<PeerSender>> over;  // joined without the lock
  absl::MutexLock lock(&mu_);
  addresses_ = std::move(addresses);
  memories_ = std::move(memories);
  memories_.resize(addresses_.size());
  senders_.assign(addresses_.size(), nullptr);
  for (auto it = peers_.begin(); it != peers_.end();) {
    const auto current = it++;
    if (std::find(addresses_.begin(), addresses_.end(), current->first) != addresses_.end()) {
      continue;
    }
    current->second->Stop();
    leaving_.push_back(std::move(current->second));
    peers_.erase(current);
  }
  // One that is just connecting to a machine that is gone takes a while: nobody waits for it.
  for (auto& sender : leaving_) {
    if (sender->stopped()) over.push_back(std::move(sender));
  }
  std::erase(leaving_, nullptr);
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
  PeerSender*& sender = senders_[index];
  if (sender == nullptr) {
    std::unique_ptr<PeerSender>& peer = peers_[addresses_[index]];
    if (peer == nullptr) peer = MakeSender(to);
    sender = peer.get();
  }
  sender->Push(transfer, std::move(bytes));
}

std::unique_ptr<PeerSender> DataPlane::MakeSender(WorkerId to) {
  const size_t index = static_cast<size_t>(to.value());
  const bool shared = segments_ != nullptr && memories_[index] == memory_;
  LOG(INFO) << "transfers to worker " << to << " at " << addresses_[index]
            << (shared ? " go through shared memory" : " go over the network");
  return std::make_unique<PeerSender>(
      PeerSender::Options{.peer = to,
                          .address = addresses_[index],
                          .token = token_,
                          .segments = shared ? segments_.get() : nullptr,
                          .checksums = checksums_,
                          .lanes = LanesFor(options_.lanes),
                          .damage_chunk = options_.damage_chunk,
                          .stats = &stats_},
      [this, to](TransferId id, absl::Status why) { options_.on_failed(to, id, std::move(why)); });
}

bool DataPlane::IsPeerPort(int port) const {
  absl::MutexLock lock(&mu_);
  return std::any_of(addresses_.begin(), addresses_.end(),
                     [port](const std::string& a) { return PortOf(a) == port; });
}

}  // namespace causeway::worker
