// Calls, answers and windows; the connection itself is in link_connection.cc.
#include "causeway/callbacks/link.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "causeway/base/check.h"
#include "causeway/base/log.h"

namespace causeway::callbacks {

Completions& Link::Pool() {
  static Completions* pool = new Completions;
  return *pool;
}

void Link::Finish(Pending call, absl::Status status) {
  Pool().Add([done = std::move(call.done), status = std::move(status)]() mutable {
    std::move(done)(std::move(status));
  });
}

void Link::Call(absl::string_view token, std::string message, std::vector<absl::Span<char>> results,
                Done done) {
  Pending call{.results = std::move(results), .done = std::move(done)};
  {
    absl::MutexLock lock(&mu_);
    if (connected_) {
      const uint64_t id = next_call_++;
      channels_[std::string(token)].queue.push_back(
          Outgoing{.call = id, .message = std::move(message)});
      pending_.emplace(id, std::move(call));
      return;
    }
  }
  Finish(std::move(call),
         absl::UnavailableError(absl::StrCat(
             "host callback: this worker has no connection to the callback relay of the head (",
             options_.host, ":", options_.port, "); run the program again once it has")));
}

void Link::Use(absl::string_view token, uint64_t group) {
  absl::MutexLock lock(&mu_);
  if (uses_[{std::string(token), group}]++ != 0 || !connected_) return;
  control_.push_back(Frame{.kind = Kind::kUse, .call = group, .payload = std::string(token)});
}

void Link::Unuse(absl::string_view token, uint64_t group) {
  absl::MutexLock lock(&mu_);
  auto it = uses_.find({std::string(token), group});
  CHECK(it != uses_.end());
  if (--it->second != 0) return;
  uses_.erase(it);
  if (!connected_) return;
  control_.push_back(Frame{.kind = Kind::kUnuse, .call = group, .payload = std::string(token)});
}

bool Link::CanSend() const {
  if (!control_.empty()) return true;
  return std::any_of(channels_.begin(), channels_.end(), [](const auto& entry) {
    return !entry.second.queue.empty() && entry.second.in_relay < kWindowBytes;
  });
}

// The next frame and its payload: control first, then a piece of the next message of the next
// channel.
bool Link::TakeNext(Frame& frame, std::string& piece) {
  if (!control_.empty()) {
    frame = std::move(control_.front());
    control_.pop_front();
    piece = std::move(frame.payload);
    return true;
  }
  auto ready = [](const auto& entry) {
    return !entry.second.queue.empty() && entry.second.in_relay < kWindowBytes;
  };
  auto it = std::find_if(channels_.upper_bound(last_channel_), channels_.end(), ready);
  if (it == channels_.end()) it = std::find_if(channels_.begin(), channels_.end(), ready);
  if (it == channels_.end()) return false;
  last_channel_ = it->first;
  Channel& channel = it->second;
  Outgoing out = std::move(channel.queue.front());
  channel.queue.pop_front();

  frame = Frame{.kind = Kind::kCall, .first = out.sent == 0, .call = out.call};
  piece.assign(it->first);
  if (frame.first) AppendInt<uint64_t>(piece, out.message.size());
  const size_t part = std::min(kPieceBytes - piece.size(), out.message.size() - out.sent);
  piece.append(out.message, out.sent, part);
  out.sent += part;
  frame.last = out.sent == out.message.size();
  channel.in_relay += static_cast<int64_t>(kHeaderBytes + piece.size());
  if (!frame.last) channel.queue.push_back(std::move(out));
  return true;
}

void Link::OnFrame(Frame frame) {
  if (frame.kind == Kind::kGrant) {
    absl::MutexLock lock(&mu_);
    auto it = channels_.find(frame.payload);
    if (it == channels_.end()) return;
    it->second.in_relay -= static_cast<int64_t>(frame.call);
    if (it->second.in_relay <= 0 && it->second.queue.empty()) channels_.erase(it);
    return;
  }
  if (frame.kind != Kind::kResult && frame.kind != Kind::kError) return;
  Pending call;
  {
    absl::MutexLock lock(&mu_);
    auto it = pending_.find(frame.call);
    if (it == pending_.end()) return;
    // Taken out while results are written, so that nobody else can finish the call meanwhile.
    call = std::move(it->second);
    pending_.erase(it);
    // An answer before the whole message was sent: the rest is not wanted.
    for (auto& [token, channel] : channels_) {
      std::erase_if(channel.queue, [&](const Outgoing& o) { return o.call == frame.call; });
    }
  }
  if (frame.kind == Kind::kError) {
    return Finish(std::move(call), DecodeError(frame.payload));
  }
  OnResult(frame, std::move(call));
}

void Link::OnResult(const Frame& frame, Pending call) {
  absl::string_view bytes = frame.payload;
  uint64_t wanted = 0;
  for (absl::Span<char> result : call.results) wanted += result.size();
  uint64_t announced = wanted;
  if (frame.first && !TakeInt(bytes, announced)) announced = wanted + 1;
  if (announced != wanted || bytes.size() > wanted - call.received) {
    return Finish(std::move(call),
                  absl::InternalError(absl::StrCat(
                      "host callback: the program expects results of ", wanted,
                      " bytes, the client sent another number; the function's results must have "
                      "the announced shapes and types")));
  }
  uint64_t begin = 0;  // of the current result, in the whole
  for (absl::Span<char> result : call.results) {
    if (bytes.empty()) break;
    const uint64_t end = begin + result.size();
    if (call.received < end) {
      const size_t part = std::min<uint64_t>(end - call.received, bytes.size());
      std::memcpy(result.data() + (call.received - begin), bytes.data(), part);
      bytes.remove_prefix(part);
      call.received += part;
    }
    begin = end;
  }
  if (!frame.last) {
    absl::MutexLock lock(&mu_);
    pending_.emplace(frame.call, std::move(call));
    return;
  }
  if (call.received != wanted) {
    return Finish(std::move(call), absl::InternalError("host callback: the results are too short"));
  }
  Finish(std::move(call), absl::OkStatus());
}

void Link::FailAll(const absl::Status& status) {
  absl::flat_hash_map<uint64_t, Pending> pending;
  {
    absl::MutexLock lock(&mu_);
    pending.swap(pending_);
    channels_.clear();
    control_.clear();
  }
  for (auto& [id, call] : pending) Finish(std::move(call), status);
}

}  // namespace causeway::callbacks
