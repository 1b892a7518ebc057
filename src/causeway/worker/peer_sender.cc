// What goes to a peer next, and what became of what went.
#include "causeway/worker/peer_sender.h"

#include <algorithm>
#include <utility>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "causeway/worker/peer_lane.h"

namespace causeway::worker {
namespace {

// From here on a block goes through shared memory where there is some, else in parts.
constexpr int64_t kLargeBytesMin = 128 << 10;
constexpr int kAttemptsMax = 2;
// Small blocks travel together up to this many bytes or blocks.
constexpr int64_t kBatchBytes = 256 << 10;
constexpr size_t kBatchItems = 512;

}  // namespace

PeerSender::PeerSender(Options options, Failed failed)
    : options_(std::move(options)), failed_(std::move(failed)), mark_(SharedFolder::NewMark()) {
  absl::MutexLock lock(&mu_);
  lanes_.push_back(std::make_unique<PeerLane>(this, 0));
}

PeerSender::~PeerSender() {
  Stop();
  std::vector<std::unique_ptr<PeerLane>> lanes;
  {
    absl::MutexLock lock(&mu_);
    lanes.swap(lanes_);
  }
  lanes.clear();
  if (options_.segments != nullptr) options_.segments->Revoke(mark_);
}

void PeerSender::Stop() {
  absl::MutexLock lock(&mu_);
  stop_ = true;
  for (const auto& lane : lanes_) lane->Stop();
}

bool PeerSender::stopped() {
  absl::MutexLock lock(&mu_);
  return std::all_of(lanes_.begin(), lanes_.end(), [](const auto& lane) { return lane->ended(); });
}

void PeerSender::Push(TransferId transfer, absl::StatusOr<device::HostBytes> bytes) {
  auto item = std::make_shared<Item>();
  item->transfer = transfer;
  item->bytes = std::move(bytes);
  item->queued = absl::Now();
  absl::MutexLock lock(&mu_);
  if (stop_) return;
  Queue(std::move(item), /*first=*/false);
}

bool PeerSender::TakesSegment(const Item& item) const {
  return options_.segments != nullptr && !item.network && item.size() >= kLargeBytesMin;
}

void PeerSender::Queue(ItemRef item, bool first) {
  const bool large = item->size() >= kLargeBytesMin && !TakesSegment(*item);
  const int64_t parts = item->size() / limits::kPushPartBytes;
  auto& queue = large ? large_ : small_;
  if (first) {
    queue.push_front(std::move(item));
  } else {
    queue.push_back(std::move(item));
  }
  const int wanted = std::min(options_.lanes, limits::kPushLanesMax);
  while (large && parts > static_cast<int64_t>(lanes_.size()) &&
         static_cast<int>(lanes_.size()) < wanted) {
    lanes_.push_back(std::make_unique<PeerLane>(this, static_cast<int>(lanes_.size())));
  }
}

// The window bounds what is under way; the block that reaches it may be of any size.
bool PeerSender::HasWork(int lane) const {
  const bool open = sent_bytes_ < limits::kPushWindowBytes;
  if (!large_.empty() && (open || large_.front()->counted)) return true;
  return lane == 0 && open && !small_.empty();
}

void PeerSender::Take(Work& work, const ItemRef& item, int lane) {
  if (!std::exchange(item->counted, true)) {
    sent_bytes_ += item->size();
    sent_[item->transfer] = item;
  }
  item->lanes |= 1u << lane;
  work.items.push_back(item);
  work.attempts.push_back(item->attempt);
}

PeerSender::Work PeerSender::NextWork(int lane) {
  Work work;
  const bool open = sent_bytes_ < limits::kPushWindowBytes;
  const bool part = !large_.empty() && (open || large_.front()->counted);
  const bool small = lane == 0 && open && !small_.empty();
  if (part && !(small && small_is_next_)) {
    small_is_next_ = true;
    const ItemRef item = large_.front();
    Take(work, item, lane);
    work.is_part = true;
    work.offset = item->next;
    work.size = std::min(limits::kPushPartBytes, item->size() - item->next);
    item->next += work.size;
    if (item->next == item->size()) large_.pop_front();
  } else if (small) {
    small_is_next_ = false;
    int64_t bytes = 0;
    do {
      bytes += small_.front()->size();
      Take(work, small_.front(), lane);
      small_.pop_front();
    } while (!small_.empty() && bytes + small_.front()->size() <= kBatchBytes &&
             work.items.size() < kBatchItems);
  }
  return work;
}

std::string PeerSender::HandSegment(const ItemRef& item) {
  absl::StatusOr<std::string> name =
      options_.segments->Hand((*item->bytes)->data(), item->size(), mark_);
  absl::MutexLock lock(&mu_);
  if (name.ok()) {
    item->in_segment = true;
    return *std::move(name);
  }
  options_.stats->FellBack("push", name.status());
  item->network = true;
  if (!stop_) Queue(item, /*first=*/true);
  return "";
}

uint64_t PeerSender::Checksum(const char* bytes, int64_t size) {
  const uint64_t checksum = XXH3_64bits(bytes, static_cast<size_t>(size));
  return ++chunks_ == options_.damage_chunk ? checksum ^ 1 : checksum;
}

void PeerSender::Confirmed(const std::vector<TransferId>& transfers) {
  struct Sum {
    int64_t transfers = 0, bytes = 0;
    absl::Duration spent;
  };
  Sum shared, streamed;
  std::vector<ItemRef> items;  // their bytes are freed after the lock
  items.reserve(transfers.size());
  const absl::Time now = absl::Now();
  {
    absl::MutexLock lock(&mu_);
    for (const TransferId transfer : transfers) {
      const auto it = sent_.find(transfer);
      if (it == sent_.end()) continue;
      items.push_back(std::move(it->second));
      sent_.erase(it);
      const ItemRef& item = items.back();
      sent_bytes_ -= item->size();
      std::erase(large_, item);  // its first attempt has come through after all
      if (!item->bytes.ok()) continue;
      Sum& sum = item->in_segment && item->attempt == 0 ? shared : streamed;
      ++sum.transfers;
      sum.bytes += item->size();
      sum.spent += now - item->queued;
    }
  }
  for (const auto& [path, sum] : {std::pair{"shared_memory", shared}, {"stream", streamed}}) {
    if (sum.transfers > 0) options_.stats->Done("push", path, sum.bytes, sum.spent, sum.transfers);
  }
}

void PeerSender::Again(ItemRef item, const absl::Status& why, std::vector<ItemRef>* lost) {
  sent_bytes_ -= item->size();
  std::erase(large_, item);
  if (++item->attempt >= kAttemptsMax) {
    lost->push_back(std::move(item));
    return;
  }
  options_.stats->Count("push_retries");
  LOG(WARNING) << "transfer " << item->transfer << " is sent once more: " << why.message();
  item->network = true;
  item->counted = false;
  item->next = 0;
  item->lanes = 0;
  Queue(std::move(item), /*first=*/true);
}

void PeerSender::Refused(TransferId transfer, int attempt, absl::Status why) {
  std::vector<ItemRef> lost;
  {
    absl::MutexLock lock(&mu_);
    const auto it = sent_.find(transfer);
    if (it == sent_.end() || it->second->attempt != attempt) return;
    ItemRef item = std::move(it->second);
    sent_.erase(it);
    Again(std::move(item), why, &lost);
  }
  GiveUp(lost, why);
}

void PeerSender::Broken(int lane, const absl::Status& why) {
  const absl::Status named = absl::DataLossError(
      absl::StrCat("the connection to worker ", options_.peer.value(), " at ", options_.address,
                   " broke: ", why.message()));
  std::vector<ItemRef> lost;
  {
    absl::MutexLock lock(&mu_);
    if (stop_) return;
    std::vector<ItemRef> hit;
    for (const auto& [transfer, item] : sent_) {
      if ((item->lanes & (1u << lane)) != 0) hit.push_back(item);
    }
    for (ItemRef& item : hit) {
      sent_.erase(item->transfer);
      Again(std::move(item), named, &lost);
    }
  }
  GiveUp(lost, named);
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
