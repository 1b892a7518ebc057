// Writes a session's replies one by one.
#include "causeway/proxy/reply_queue.h"

#include <iterator>
#include <utility>

namespace causeway::proxy {
namespace {

constexpr size_t kMaxSpareReplies = 64;

google::protobuf::ArenaOptions InBlock(char* block, size_t size) {
  google::protobuf::ArenaOptions options;
  options.initial_block = block;
  options.initial_block_size = size;
  return options;
}

}  // namespace

Reply::Reply()
    : arena_(InBlock(block_, sizeof(block_))),
      message_(google::protobuf::Arena::CreateMessage<ifrt::IfrtResponse>(&arena_)) {}

void Reply::Clear() {
  arena_.Reset();
  message_ = google::protobuf::Arena::CreateMessage<ifrt::IfrtResponse>(&arena_);
}

std::unique_ptr<Reply> ReplyQueue::NewReply() {
  {
    absl::MutexLock lock(&mu_);
    if (!spare_.empty()) {
      std::unique_ptr<Reply> reply = std::move(spare_.back());
      spare_.pop_back();
      return reply;
    }
  }
  return std::make_unique<Reply>();
}

void ReplyQueue::Send(std::unique_ptr<Reply> reply, const Bookkeeping& book) {
  absl::MutexLock lock(&mu_);
  if (finished_) return;
  if (book.awaited) {
    queue_.push_back({std::move(reply), book});
    if (writing_ == nullptr) WriteNext();
    return;
  }
  held_.push_back({std::move(reply), book});
  if (held_.size() == kHeldMax) {
    QueueHeld();
  } else if (!std::exchange(release_due_, true)) {
    stream_->ReleaseSoon();
  }
}

void ReplyQueue::ReleaseHeld() {
  absl::MutexLock lock(&mu_);
  release_due_ = false;
  if (!finished_ && !held_.empty()) QueueHeld();
}

void ReplyQueue::QueueHeld() {
  queue_.insert(queue_.end(), std::make_move_iterator(held_.begin()),
                std::make_move_iterator(held_.end()));
  held_.clear();
  if (writing_ == nullptr) WriteNext();
}

// Numbers follow the order on the wire, which is not always that of Send().
void ReplyQueue::WriteNext() {
  const Bookkeeping book = queue_.front().book;
  writing_ = std::move(queue_.front().reply);
  queue_.pop_front();
  contexts_.Answered(book.user_context, book.named_by_error);
  if (book.numbered) {
    ifrt::ResponseMetadata* metadata = writing_->message().mutable_response_metadata();
    metadata->set_seq_num(contexts_.Number(&released_));
    metadata->mutable_destroyed_user_context_ids()->Add(released_.begin(), released_.end());
  }
  stream_->Write(writing_->message(), /*more=*/!queue_.empty());
}

bool ReplyQueue::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mu_);
  std::unique_ptr<Reply> done = std::move(writing_);
  if (!ok || finished_) {
    queue_.clear();
    held_.clear();
    return false;
  }
  if (!queue_.empty()) WriteNext();
  if (spare_.size() < kMaxSpareReplies) {
    done->Clear();
    spare_.push_back(std::move(done));
  }
  if (!reading_held_ || queue_.size() > max_queued_ / 2) return false;
  reading_held_ = false;
  return true;
}

bool ReplyQueue::MayRead() {
  absl::MutexLock lock(&mu_);
  // With no write under way nothing would ever wake the reader.
  reading_held_ = queue_.size() >= max_queued_ && writing_ != nullptr;
  return !reading_held_;
}

void ReplyQueue::Read() {
  absl::MutexLock lock(&mu_);
  if (!finished_) stream_->Read();
}

void ReplyQueue::Finish(const grpc::Status& status) {
  absl::MutexLock lock(&mu_);
  if (finished_) return;
  finished_ = true;
  queue_.clear();
  held_.clear();
  stream_->Finish(status);
}

}  // namespace causeway::proxy
