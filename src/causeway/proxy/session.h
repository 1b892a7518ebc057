// One client's session: starts its requests in order and owes each exactly one reply.
//
// Thread safety: Handle() is called by one thread at a time (the stream's read callback); Close()
// and the replies may come from any thread. Members say which of the two they belong to.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/limits.h"
#include "causeway/core/runtime.h"
#include "causeway/proxy/context.h"
#include "causeway/proxy/host_buffer_store.h"
#include "causeway/proxy/room.h"
#include "causeway/proxy/version.h"
#include "causeway/wire/ifrt_sharding.h"

namespace causeway::ifrt {
class IfrtRequest;
class IfrtResponse;
}  // namespace causeway::ifrt

namespace causeway::proxy {

class Reply;
class ReplyQueue;
class Session;

// Handles below this are the client's, the others the server's; 0 is nobody's.
inline constexpr uint64_t kFirstServerHandle = uint64_t{1} << 48;
inline bool IsClientHandle(uint64_t handle) { return handle != 0 && handle < kFirstServerHandle; }

// Outcomes that are known already and that the client asks for once.
// Thread safety: all methods may be called from any thread.
class FutureTable {
 public:
  struct Future {
    absl::Status status;
    // The client asks for these outside its usual path, where replies carry no number.
    bool of_deletion = false;
  };
  void Put(uint64_t handle, Future future);
  std::optional<Future> Take(uint64_t handle);

 private:
  // Clients ask for every future at once; one that never asks loses the oldest.
  static constexpr size_t kMaxFutures = limits::kSessionFuturesMax;
  absl::Mutex mu_;
  std::map<uint64_t, Future> futures_ ABSL_GUARDED_BY(mu_);
};

// The duty to answer one request. Moves to where the answer becomes known; destroying it
// unanswered answers CANCELLED, so that no request is ever left without a reply.
class Call {
 public:
  Call(std::shared_ptr<Session> session, uint64_t op_id, uint64_t user_context, int kind);
  Call(Call&& other) noexcept;
  Call& operator=(Call&&) = delete;
  ~Call();

  Session& session() const { return *session_; }
  // The message to fill in. Set the oneof member of the request's number, then Ok().
  ifrt::IfrtResponse& response();
  void Ok();
  void Fail(absl::Status status);
  // Adds the request's client-side stack to an error that will outlive this call.
  absl::Status Annotate(absl::Status status);
  // The client handles this reply apart from the others: it must carry no number.
  void MarkUnnumbered() { numbered_ = false; }
  // No client waits for the reply, unless it is an error.
  void MarkUnawaited() { awaited_ = false; }

 private:
  void Send(bool numbered, bool awaited);

  std::shared_ptr<Session> session_;  // null: answered or moved from
  uint64_t op_id_;
  uint64_t user_context_;
  int kind_;
  bool numbered_ = true;
  bool awaited_ = true;
  bool named_by_error_ = false;
  std::unique_ptr<Reply> reply_;
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<Context> context, Version version, std::string peer,
          std::shared_ptr<ReplyQueue> replies, std::string folder = "");
  ~Session();

  // False: the request has to wait for bytes that the client is still sending, and is to be shown
  // here again when `resume` was called.
  bool MayHandle(const ifrt::IfrtRequest& request, Room::Resume resume);
  // Starts one request; its reply may follow later. Never blocks.
  void Handle(const ifrt::IfrtRequest& request);
  // False: the client is ahead of us or of the workers, or does not fetch what it asked for; the
  // next request is not to be read before `resume` was called.
  bool MayRead(Room::Resume resume);
  // Ends the session in the runtime and fails what waits. Idempotent.
  void Close(absl::string_view reason);

  // Fixed after construction.
  const std::shared_ptr<Context> context;
  const Version version;
  const std::string peer;
  const std::shared_ptr<ReplyQueue> replies;
  const std::shared_ptr<HostBufferStore> buffers;
  core::Runtime& runtime() const { return context->runtime; }

  // Synchronise themselves.
  FutureTable futures;
  Room open_calls;

  // Of the read callback; set by the init request.
  bool initialized = false;
  SessionId id;
  std::string default_memory_kind = "device";
  wire::ShardingCache shardings;
  core::ExecuteRequest execute_scratch;  // keeps its memory from one execute to the next

 private:
  void Dispatch(Call call, const ifrt::IfrtRequest& request);

  // Keeps Close() from running inside Handle(): no request reaches the runtime after its session
  // is closed. Runtime callbacks never take it.
  absl::Mutex serial_mu_;
  bool closed_ ABSL_GUARDED_BY(serial_mu_) = false;
};

}  // namespace causeway::proxy
