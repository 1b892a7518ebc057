// The thread that writes to one peer, and the one that hears what became of it.
#include "causeway/worker/peer_sender.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <utility>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "control.grpc.pb.h"

namespace causeway::worker {
namespace {

// From here on a block goes through shared memory, where there is some.
constexpr int64_t kSegmentBytesMin = 128 << 10;
constexpr int kAttemptsMax = 2;
// Small blocks travel together up to this many bytes or blocks.
constexpr int64_t kBatchBytes = 256 << 10;
constexpr size_t kBatchItems = 512;

}  // namespace

// One Push call with the thread that reads its answers.
class PeerSender::Stream {
 public:
  Stream(PeerSender* sender, control::DataPlane::Stub* stub) : call_(stub->Push(&context_)) {
    reader_ = std::thread([this, sender] {
      control::PushReply reply;
      while (call_->Read(&reply)) {
        for (const uint64_t done : reply.done()) sender->Confirmed(TransferId(done));
        for (const control::PushProblem& problem : reply.problems()) {
          sender->Refused(TransferId(problem.transfer()),
                          absl::Status(static_cast<absl::StatusCode>(problem.status().code()),
                                       problem.status().message()));
        }
      }
      {
        absl::MutexLock lock(&sender->mu_);
        over_ = true;
      }
    });
  }
  // The call is over.
  ~Stream() {
    context_.TryCancel();
    reader_.join();
    (void)call_->Finish();
  }
  bool Write(const control::PushBatch& batch) { return call_->Write(batch); }
  void Cancel() { context_.TryCancel(); }
  bool over() const { return over_; }  // under the sender's lock
  bool fresh = true;

 private:
  grpc::ClientContext context_;
  const std::unique_ptr<grpc::ClientReaderWriter<control::PushBatch, control::PushReply>> call_;
  std::thread reader_;
  bool over_ = false;
};

PeerSender::PeerSender(Options options, Failed failed)
    : options_(std::move(options)),
      failed_(std::move(failed)),
      mark_(SharedFolder::NewMark()),
      thread_([this] { Loop(); }) {}

PeerSender::~PeerSender() {
  {
    absl::MutexLock lock(&mu_);
    stop_ = true;
    if (stream_ != nullptr) stream_->Cancel();
  }
  thread_.join();
  if (options_.segments != nullptr) options_.segments->Revoke(mark_);
}

void PeerSender::Push(TransferId transfer, absl::StatusOr<device::HostBytes> bytes) {
  auto item = std::make_shared<Item>();
  item->transfer = transfer;
  item->bytes = std::move(bytes);
  item->queued = absl::Now();
  absl::MutexLock lock(&mu_);
  queue_.push_back(std::move(item));
}

void PeerSender::Loop() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  auto channel = grpc::CreateCustomChannel(options_.address, grpc::InsecureChannelCredentials(),
                                           arguments);
  auto stub = control::DataPlane::NewStub(channel);
  std::unique_ptr<Stream> stream;
  while (true) {
    std::vector<ItemRef> items;
    std::vector<int> attempts;
    bool broken = false;
    {
      absl::MutexLock lock(&mu_);
      auto ready = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        if (stop_ || (stream != nullptr && stream->over())) return true;
        // At least one transfer may always be under way.
        return !queue_.empty() &&
               (sent_bytes_ == 0 ||
                sent_bytes_ + queue_.front()->size() <= limits::kPushWindowBytes);
      };
      mu_.Await(absl::Condition(&ready));
      if (stop_) {
        stream_ = nullptr;
        break;
      }
      broken = stream != nullptr && stream->over();
      if (!broken) items = NextItems();
      for (const ItemRef& item : items) attempts.push_back(item->attempt);
    }
    if (!broken && stream == nullptr) {
      stream = std::make_unique<Stream>(this, stub.get());
      absl::MutexLock lock(&mu_);
      stream_ = stream.get();
      if (stop_) stream->Cancel();
    }
    if (!broken) broken = !Send(*stream, items, attempts);
    if (!broken) continue;
    {
      absl::MutexLock lock(&mu_);
      stream_ = nullptr;
    }
    stream = nullptr;
    Broken(absl::DataLossError(absl::StrCat("the connection to worker ", options_.peer.value(),
                                            " at ", options_.address, " broke")));
  }
}

std::vector<PeerSender::ItemRef> PeerSender::NextItems() {
  std::vector<ItemRef> items;
  int64_t bytes = 0;
  do {
    ItemRef item = std::move(queue_.front());
    queue_.pop_front();
    bytes += item->size();
    sent_bytes_ += item->size();
    sent_[item->transfer] = item;
    items.push_back(std::move(item));
  } while (!queue_.empty() && bytes + queue_.front()->size() <= kBatchBytes &&
           items.size() < kBatchItems);
  return items;
}

void PeerSender::AddChecksum(const char* bytes, int64_t size, control::Data* data) {
  if (!options_.checksums) return;
  data->set_has_checksum(true);
  uint64_t checksum = XXH3_64bits(bytes, static_cast<size_t>(size));
  if (++chunks_ == options_.damage_chunk) checksum ^= 1;
  data->set_checksum(checksum);
}

void PeerSender::Describe(const Item& item, int attempt, control::Data* data) {
  data->set_transfer(item.transfer.value());
  data->set_attempt(attempt);
  data->set_total(item.size());
}

bool PeerSender::Send(Stream& stream, const std::vector<ItemRef>& items,
                      const std::vector<int>& attempts) {
  control::PushBatch batch;
  if (std::exchange(stream.fresh, false)) batch.set_token(options_.token);
  for (size_t i = 0; i < items.size(); ++i) {
    Item& item = *items[i];
    control::Data* data = batch.add_data();
    Describe(item, attempts[i], data);
    if (!item.bytes.ok()) {
      data->mutable_error()->set_code(static_cast<int>(item.bytes.status().code()));
      data->mutable_error()->set_message(std::string(item.bytes.status().message()));
    } else if (item.size() >= kSegmentBytesMin) {
      // Large ones come alone.
      return SendLarge(stream, item, &batch);
    } else {
      data->set_bytes((*item.bytes)->data(), static_cast<size_t>(item.size()));
      AddChecksum((*item.bytes)->data(), item.size(), data);
    }
  }
  return stream.Write(batch);
}

bool PeerSender::SendLarge(Stream& stream, Item& item, control::PushBatch* batch) {
  control::Data* data = batch->mutable_data(0);
  const char* bytes = (*item.bytes)->data();
  const int64_t total = item.size();
  if (options_.segments != nullptr && data->attempt() == 0) {
    absl::StatusOr<std::string> name = options_.segments->Hand(bytes, total, mark_);
    if (name.ok()) {
      {
        absl::MutexLock lock(&mu_);
        item.in_segment = true;
      }
      data->set_segment(*name);
      AddChecksum(bytes, total, data);
      return stream.Write(*batch);
    }
    options_.stats->FellBack("push", name.status());
  }
  for (int64_t offset = 0; offset < total;) {
    const int64_t size = std::min(limits::kDataChunkBytes, total - offset);
    data->set_offset(offset);
    data->set_bytes(bytes + offset, static_cast<size_t>(size));
    AddChecksum(bytes + offset, size, data);
    if (!stream.Write(*batch)) return false;
    batch->clear_token();
    offset += size;
  }
  return true;
}

void PeerSender::Confirmed(TransferId transfer) {
  ItemRef item;  // its bytes are freed after the lock
  absl::MutexLock lock(&mu_);
  const auto it = sent_.find(transfer);
  if (it == sent_.end()) return;
  item = std::move(it->second);
  sent_.erase(it);
  sent_bytes_ -= item->size();
  if (item->bytes.ok()) {
    options_.stats->Done("push", item->in_segment && item->attempt == 0 ? "shared_memory" : "stream",
                         item->size(), absl::Now() - item->queued);
  }
}

void PeerSender::Again(ItemRef item, const absl::Status& why, std::vector<ItemRef>* lost) {
  sent_bytes_ -= item->size();
  if (++item->attempt >= kAttemptsMax) {
    lost->push_back(std::move(item));
    return;
  }
  options_.stats->Count("push_retries");
  LOG(WARNING) << "transfer " << item->transfer << " is sent once more: " << why.message();
  queue_.push_front(std::move(item));
}

void PeerSender::Refused(TransferId transfer, absl::Status why) {
  std::vector<ItemRef> lost;
  {
    absl::MutexLock lock(&mu_);
    const auto it = sent_.find(transfer);
    if (it == sent_.end()) return;
    ItemRef item = std::move(it->second);
    sent_.erase(it);
    Again(std::move(item), why, &lost);
  }
  GiveUp(lost, why);
}

void PeerSender::Broken(const absl::Status& why) {
  std::vector<ItemRef> lost;
  {
    absl::MutexLock lock(&mu_);
    if (stop_) return;
    for (auto& [transfer, item] : std::exchange(sent_, {})) Again(std::move(item), why, &lost);
  }
  GiveUp(lost, why);
}

void PeerSender::GiveUp(const std::vector<ItemRef>& lost, const absl::Status& why) {
  for (const ItemRef& item : lost) {
    options_.stats->Count("push_failures");
    LOG(WARNING) << "transfer " << item->transfer << " to worker " << options_.peer
                 << " is given up: " << why.message();
    failed_(item->transfer, why);
  }
}

}  // namespace causeway::worker
