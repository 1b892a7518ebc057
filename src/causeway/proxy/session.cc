// Session life, the reply duty, futures. Dispatch by request kind is in session_handlers.cc.
#include "causeway/proxy/session.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/check.h"
#include "causeway/base/log.h"
#include "causeway/proxy/reply_queue.h"
#include "causeway/wire/ifrt_status.h"
#include "ifrt_session.pb.h"

namespace causeway::proxy {

void FutureTable::Put(uint64_t handle, Future future) {
  absl::MutexLock lock(&mu_);
  futures_[handle] = std::move(future);
  if (futures_.size() > kMaxFutures) futures_.erase(futures_.begin());
}

std::optional<FutureTable::Future> FutureTable::Take(uint64_t handle) {
  absl::MutexLock lock(&mu_);
  auto it = futures_.find(handle);
  if (it == futures_.end()) return std::nullopt;
  Future out = std::move(it->second);
  futures_.erase(it);
  return out;
}

Call::Call(std::shared_ptr<Session> session, uint64_t op_id, uint64_t user_context, int kind)
    : session_(std::move(session)), op_id_(op_id), user_context_(user_context), kind_(kind) {
  session_->open_calls.Take(1);
}

Call::Call(Call&& other) noexcept
    : session_(std::move(other.session_)),
      op_id_(other.op_id_),
      user_context_(other.user_context_),
      kind_(other.kind_),
      numbered_(other.numbered_),
      awaited_(other.awaited_),
      named_by_error_(other.named_by_error_),
      reply_(std::move(other.reply_)) {}

Call::~Call() {
  if (session_ != nullptr) {
    Fail(absl::CancelledError("the request was dropped before it was done, most likely because "
                              "its session is ending; open a new session"));
  }
}

ifrt::IfrtResponse& Call::response() {
  if (reply_ == nullptr) reply_ = session_->replies->NewReply();
  return reply_->message();
}

void Call::Ok() {
  CHECK_EQ(static_cast<int>(response().response_case()), kind_);
  Send(numbered_, awaited_);
}

absl::Status Call::Annotate(absl::Status status) {
  if (wire::AttachUserContext(user_context_, &status)) named_by_error_ = true;
  return status;
}

void Call::Fail(absl::Status status) {
  CHECK(!status.ok()) << "Fail() needs an error";
  session_->context->counters.failed_requests.fetch_add(1, std::memory_order_relaxed);
  LOG(DEBUG) << "session " << session_->id << " request " << op_id_ << ": " << status;
  response().clear_response();
  wire::StatusToProto(status, response().mutable_response_metadata()->mutable_status());
  Send(/*numbered=*/false, /*awaited=*/true);
}

void Call::Send(bool numbered, bool awaited) {
  response().mutable_response_metadata()->set_op_id(op_id_);
  const std::shared_ptr<Session> session = std::move(session_);
  session->replies->Send(std::move(reply_), {.user_context = user_context_,
                                             .named_by_error = named_by_error_,
                                             .numbered = numbered,
                                             .awaited = awaited});
  session->open_calls.GiveBack(1);
}

Session::Session(std::shared_ptr<Context> the_context, Version the_version, std::string the_peer,
                 std::shared_ptr<ReplyQueue> the_replies, std::string folder)
    : context(std::move(the_context)),
      version(the_version),
      peer(std::move(the_peer)),
      replies(std::move(the_replies)),
      buffers(std::make_shared<HostBufferStore>(
          HostBufferStore::Limits{.max_bytes = context->options.max_bytes_per_session,
                                  .max_buffers = context->options.max_buffers_per_session,
                                  .max_in_flight = context->options.max_bytes_in_flight},
          std::move(folder))),
      open_calls(context->options.max_open_calls) {}

Session::~Session() { Close("its stream is gone"); }

bool Session::MayHandle(const ifrt::IfrtRequest& request, Room::Resume resume) {
  if (!initialized || !request.has_loaded_executable_execute_request()) return true;
  const auto& execute = request.loaded_executable_execute_request();
  const std::vector<ArrayHandle> args(execute.args_handles().begin(),
                                      execute.args_handles().end());
  return runtime().MayExecute(id, ExecutableHandle(execute.loaded_executable_handle()), args,
                              std::move(resume));
}

void Session::Handle(const ifrt::IfrtRequest& request) {
  const int kind = static_cast<int>(request.request_case());
  context->counters.requests[kind < Counters::kKinds ? kind : 0].fetch_add(
      1, std::memory_order_relaxed);
  absl::MutexLock lock(&serial_mu_);
  if (closed_) return;
  Dispatch(Call(shared_from_this(), request.request_metadata().op_id(),
                request.request_metadata().user_context_id(), kind),
           request);
}

bool Session::MayRead(Room::Resume resume) {
  return open_calls.MayPass(resume) && buffers->in_flight().MayPass(resume) &&
         (!initialized || runtime().MayGoOn(id, resume));
}

void Session::Close(absl::string_view reason) {
  {
    absl::MutexLock lock(&serial_mu_);
    if (closed_) return;
    closed_ = true;
  }
  // No Handle() runs from here on.
  if (initialized) {
    LOG(INFO) << "session " << id << " of " << peer << " closed: " << reason;
    context->Retract(id);
    context->runtime.CloseSession(id);
  }
  buffers->Shutdown(reason);
}

}  // namespace causeway::proxy
