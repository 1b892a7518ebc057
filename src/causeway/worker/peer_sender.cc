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
constexpr size_t kBatchReserved = 64;  // once there is a second block

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
  Item item;
  item.transfer = transfer;
  item.bytes = std::move(bytes);
  absl::MutexLock lock(&mu_);
  if (!stop_) Queue(std::move(item), /*first=*/false);
}

bool PeerSender::TakesSegment(const Item& item) const {
  return options_.segments != nullptr && !item.network && item.size() >= kLargeBytesMin;
}

void PeerSender::Queue(Item&& item, bool first) {
  if (item.size() >= kLargeBytesMin && !TakesSegment(item)) {
    const int64_t parts = item.size() / limits::kPushPartBytes;
    if (item.queued == absl::Time()) item.queued = absl::Now();
    large_.insert(first ? large_.begin() : large_.end(), std::make_shared<Item>(std::move(item)));
    const int wanted = std::min(options_.lanes, limits::kPushLanesMax);
    while (parts > static_cast<int64_t>(lanes_.size()) &&
           static_cast<int>(lanes_.size()) < wanted) {
      lanes_.push_back(std::make_unique<PeerLane>(this, static_cast<int>(lanes_.size())));
    }
    return;
  }
  auto fits = [&item](const Batch& batch) {
    return batch.bytes + item.size() <= kBatchBytes && batch.items.size() < kBatchItems;
  };
  if (small_.empty() || !fits(first ? *small_.front() : *small_.back())) {
    const auto made = small_.insert(first ? small_.begin() : small_.end(),
                                    std::make_shared<Batch>());
    (*made)->begun = absl::Now();
  }
  Batch& batch = first ? *small_.front() : *small_.back();
  if (batch.items.size() == 1) batch.items.reserve(kBatchReserved);
  if (item.queued == absl::Time()) item.queued = batch.begun;
  batch.bytes += item.size();
  batch.items.push_back(std::move(item));
}

// The window bounds what is under way; the block that reaches it may be of any size.
bool PeerSender::HasWork(int lane) const {
  const bool open = sent_bytes_ < limits::kPushWindowBytes;
  if (!large_.empty() && (open || large_.front()->counted)) return true;
  return lane == 0 && open && !small_.empty();
}

PeerSender::Work PeerSender::NextWork(int lane) {
  Work work;
  const bool open = sent_bytes_ < limits::kPushWindowBytes;
  const bool part = !large_.empty() && (open || large_.front()->counted);
  const bool small = lane == 0 && open && !small_.empty();
  if (part && !(small && small_is_next_)) {
    small_is_next_ = true;
    const ItemRef item = large_.front();
    if (!std::exchange(item->counted, true)) {
      sent_bytes_ += item->size();
      sent_[item->transfer] = item;
    }
    item->lanes |= 1u << lane;
    work.item = item;
    work.attempt = item->attempt;
    work.offset = item->next;
    work.size = std::min(limits::kPushPartBytes, item->size() - item->next);
    item->next += work.size;
    if (item->next == item->size()) large_.pop_front();
  } else if (small) {
    small_is_next_ = false;
    work.batch = std::move(small_.front());
    small_.pop_front();
    sent_bytes_ += work.batch->bytes;
    under_way_.push_back(work.batch);
  }
  return work;
}

std::string PeerSender::HandSegment(const BatchRef& batch, Item& item) {
  absl::StatusOr<std::string> name =
      options_.segments->Hand((*item.bytes)->data(), item.size(), mark_);
  BatchRef ended;
  absl::MutexLock lock(&mu_);
  if (name.ok()) {
    item.in_segment = true;
    return *std::move(name);
  }
  options_.stats->FellBack("push", name.status());
  if (!item.over) {
    Item other = item;
    other.network = true;
    ended = Over(batch, item);
    if (!stop_) Queue(std::move(other), /*first=*/true);
  }
  return "";
}

uint64_t PeerSender::Checksum(const char* bytes, int64_t size) {
  const uint64_t checksum = XXH3_64bits(bytes, static_cast<size_t>(size));
  return ++chunks_ == options_.damage_chunk ? checksum ^ 1 : checksum;
}

PeerSender::Item* PeerSender::Find(TransferId transfer, BatchRef* batch) {
  for (const BatchRef& candidate : under_way_) {
    const size_t count = candidate->items.size();
    for (size_t i = 0; i < count; ++i) {
      const size_t index = (candidate->expected + i) % count;
      Item& item = candidate->items[index];
      if (item.transfer != transfer || item.over) continue;
      candidate->expected = index + 1;
      *batch = candidate;
      return &item;
    }
  }
  return nullptr;
}

PeerSender::BatchRef PeerSender::Over(const BatchRef& batch, Item& item) {
  item.over = true;
  sent_bytes_ -= item.size();
  if (++batch->num_over < batch->items.size()) return nullptr;
  BatchRef ended = batch;
  if (under_way_.front() == batch) {
    under_way_.pop_front();
  } else {
    std::erase(under_way_, ended);
  }
  return ended;
}

void PeerSender::Confirmed(absl::Span<const uint64_t> transfers) {
  struct Sum {
    int64_t transfers = 0, bytes = 0;
    absl::Duration spent;
  };
  Sum shared, streamed;
  std::vector<BatchRef> batches;  // these and the items are freed after the lock
  std::vector<ItemRef> items;
  const absl::Time now = absl::Now();
  auto count = [&](const Item& item) {
    if (!item.bytes.ok()) return;
    Sum& sum = item.in_segment ? shared : streamed;
    ++sum.transfers;
    sum.bytes += item.size();
    sum.spent += now - item.queued;
  };
  {
    absl::MutexLock lock(&mu_);
    for (const uint64_t id : transfers) {
      const TransferId transfer(id);
      if (const auto it = sent_.find(transfer); it != sent_.end()) {
        items.push_back(std::move(it->second));
        sent_.erase(it);
        const ItemRef& item = items.back();
        sent_bytes_ -= item->size();
        std::erase(large_, item);  // its first attempt has come through after all
        count(*item);
        continue;
      }
      BatchRef batch;
      Item* const item = Find(transfer, &batch);
      if (item == nullptr) continue;
      count(*item);
      if (BatchRef ended = Over(batch, *item)) batches.push_back(std::move(ended));
    }
  }
  for (const auto& [path, sum] : {std::pair{"shared_memory", shared}, {"stream", streamed}}) {
    if (sum.transfers > 0) options_.stats->Done("push", path, sum.bytes, sum.spent, sum.transfers);
  }
}

void PeerSender::Again(Item item, const absl::Status& why, std::vector<Item>* lost) {
  if (++item.attempt >= kAttemptsMax) {
    lost->push_back(std::move(item));
    return;
  }
  options_.stats->Count("push_retries");
  LOG(WARNING) << "transfer " << item.transfer << " is sent once more: " << why.message();
  item.network = true;
  item.in_segment = false;
  item.over = false;
  item.counted = false;
  item.next = 0;
  item.lanes = 0;
  Queue(std::move(item), /*first=*/true);
}

void PeerSender::AgainLarge(ItemRef item, const absl::Status& why, std::vector<Item>* lost) {
  sent_.erase(item->transfer);
  sent_bytes_ -= item->size();
  std::erase(large_, item);
  Again(*item, why, lost);
}

void PeerSender::Refused(TransferId transfer, int attempt, absl::Status why) {
  std::vector<Item> lost;
  BatchRef ended;
  {
    absl::MutexLock lock(&mu_);
    BatchRef batch;
    const auto it = sent_.find(transfer);
    if (it != sent_.end()) {
      if (it->second->attempt != attempt) return;
      AgainLarge(std::move(it->second), why, &lost);
    } else if (Item* const item = Find(transfer, &batch)) {
      if (item->attempt != attempt) return;
      Item again = *item;
      ended = Over(batch, *item);
      Again(std::move(again), why, &lost);
    }
  }
  GiveUp(lost, why);
}

void PeerSender::Broken(int lane, const absl::Status& why) {
  const absl::Status named = absl::DataLossError(
      absl::StrCat("the connection to worker ", options_.peer.value(), " at ", options_.address,
                   " broke: ", why.message()));
  std::vector<Item> lost;
  std::deque<BatchRef> batches;  // of lane 0; freed after the lock
  {
    absl::MutexLock lock(&mu_);
    if (stop_) return;
    std::vector<ItemRef> hit;
    for (const auto& [transfer, item] : sent_) {
      if ((item->lanes & (1u << lane)) != 0) hit.push_back(item);
    }
    for (ItemRef& item : hit) AgainLarge(std::move(item), named, &lost);
    if (lane == 0) batches.swap(under_way_);
    for (const BatchRef& batch : batches) {
      for (Item& item : batch->items) {
        if (item.over) continue;
        sent_bytes_ -= item.size();
        Again(item, named, &lost);
      }
    }
  }
  GiveUp(lost, named);
}

void PeerSender::GiveUp(const std::vector<Item>& lost, const absl::Status& why) {
  for (const Item& item : lost) {
    options_.stats->Count("push_failures");
    LOG(WARNING) << "transfer " << item.transfer << " to worker " << options_.peer
                 << " is given up: " << why.message();
    failed_(item.transfer, why);
  }
}

}  // namespace causeway::worker
