// Frames of workers, cut and handed to the sink.
#include "causeway/controller/worker_connection.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "causeway/base/process_exit.h"
#include "causeway/controller/hello_codec.h"
#include "causeway/liveness/death_watch.h"
#include "causeway/wire/control_codec.h"

namespace causeway::controller {
namespace {

using wire::ControlFrame;
using Lane = WorkerAttachment::Lane;

// Of one connection before others get their turn.
constexpr int kReadsPerTurn = 16;

std::string ThisHost() {
  char name[256] = "";
  (void)::gethostname(name, sizeof(name) - 1);
  return name;
}

}  // namespace

WorkerConnection::WorkerConnection(std::shared_ptr<WorkerDoor> door, net::Socket socket)
    : door_(std::move(door)),
      socket_(std::make_shared<net::Socket>(std::move(socket))),
      loop_(door_->commands),
      reader_(limits::kHelloBytesMax) {
  absl::MutexLock lock(&door_->mu);
  ++door_->connections;
}

WorkerConnection::~WorkerConnection() {
  absl::MutexLock lock(&door_->mu);
  --door_->connections;
}

absl::Status WorkerConnection::Start() {
  door_->timers->Schedule(absl::Seconds(limits::kHelloSecondsMax), [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->CutOffIfNew();
  });
  return loop_->Add(socket_->fd(), shared_from_this());
}

void WorkerConnection::CutOffIfNew() {
  const State state = state_;
  if (state == State::kNew || state == State::kRefused) ::shutdown(socket_->fd(), SHUT_RDWR);
}

void WorkerConnection::OnWritable() {
  if (attachment_ == nullptr) return;
  attachment_->Writable(state_ == State::kBulk ? Lane::kBulk : Lane::kCommands);
}

void WorkerConnection::OnReadable() {
  net::EventLoop* const loop = loop_;
  for (int i = 0; i < kReadsPerTurn && state_ != State::kGone && loop_ == loop; ++i) {
    char ignored[4096];
    const bool refused = state_ == State::kRefused;
    const absl::Span<char> space = refused ? absl::MakeSpan(ignored) : reader_.Space();
    const ssize_t size = ::recv(socket_->fd(), space.data(), space.size(), MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) return Over(/*lost=*/true);
    if (!refused) {
      reader_.Received(static_cast<size_t>(size));
      OnFrames();
    }
    if (static_cast<size_t>(size) < space.size()) return;
  }
}

void WorkerConnection::OnFrames() {
  // After a move to the other loop this thread may touch nothing more.
  net::EventLoop* const loop = loop_;
  while (loop_ == loop && state_ != State::kGone && state_ != State::kRefused) {
    const absl::StatusOr<std::optional<net::Frame>> frame = reader_.Next();
    if (frame.ok() && !frame->has_value()) return;
    const absl::Status status = frame.ok() ? OnFrame(**frame) : frame.status();
    if (!status.ok()) Refuse(status);
  }
}

absl::Status WorkerConnection::OnFrame(const net::Frame& frame) {
  if (state_ == State::kNew) return Begin(frame);
  if (frame.kind == Kind(ControlFrame::kEnd)) {
    const absl::Status why = wire::DecodeEnd(frame.payload);
    if (!why.ok()) farewell_ = absl::StrCat("it left: ", why.message());
    Over(/*lost=*/false);
  } else if (frame.kind != Kind(ControlFrame::kMessage)) {
    return absl::InvalidArgumentError("a second greeting on one connection");
  } else if (state_ == State::kCommands) {
    attachment_->Heard();
    door_->sink->OnEvent(worker_, admission_.incarnation, frame.payload);
  }
  return absl::OkStatus();  // a bulk connection is read only to hear of its end
}

absl::Status WorkerConnection::Begin(const net::Frame& frame) {
  if (frame.kind == Kind(ControlFrame::kAskLocal)) {
    TellLocalSocket(frame.payload);
    return absl::OkStatus();
  }
  const bool attach = frame.kind == Kind(ControlFrame::kAttach);
  absl::StatusOr<Greeting> greeting = DecodeGreeting(frame.payload);
  if ((!attach && frame.kind != Kind(ControlFrame::kBulk)) || !greeting.ok()) {
    return absl::InvalidArgumentError(
        "a connection of a worker begins with Hello; is it of another version?");
  }
  reader_.set_max_payload(limits::kMessageBytesMax);
  return attach ? Admit(greeting->hello) : Join(greeting->token);
}

void WorkerConnection::TellLocalSocket(absl::string_view memory) {
  if (memory.empty() || memory != door_->data.memory) {
    return Say(ControlFrame::kNoLocal,
               wire::EncodeEnd(absl::FailedPreconditionError(
                   "head and worker have no memory in common: they are on two machines, of "
                   "two users, or one of them does not use shared memory")));
  }
  if (!door_->local_socket.ok()) {
    return Say(ControlFrame::kNoLocal, wire::EncodeEnd(door_->local_socket.status()));
  }
  Say(ControlFrame::kLocal, std::make_shared<const std::string>(*door_->local_socket));
}

// What a new connection does not take at once is not worth waiting for.
void WorkerConnection::Say(ControlFrame kind, std::shared_ptr<const std::string> payload) {
  net::FrameWriter writer;
  writer.Add(Kind(kind), std::move(payload));
  (void)writer.Flush(socket_->fd());
}

absl::Status WorkerConnection::Admit(const core::WorkerHello& hello) {
  {
    absl::MutexLock lock(&door_->mu);
    if (door_->shut_down) {
      return absl::UnavailableError("the head is shutting down; try again later");
    }
  }
  worker_ = hello.worker;
  if (hello.host == ThisHost()) {
    pid_ = hello.pid;
    process_start_ = ProcessStart(pid_);
  }
  auto attachment =
      std::make_shared<WorkerAttachment>(*door_->timers, door_->data, *door_->commands,
                                         *door_->bulk, door_->writer, socket_);
  attachment->SetWorkerMemory(hello.memory);
  absl::StatusOr<core::WorkerAdmission> admission = door_->sink->OnAttached(hello, attachment);
  if (!admission.ok()) return admission.status();
  attachment_ = std::move(attachment);
  admission_ = *std::move(admission);
  state_ = State::kCommands;
  if (door_->deaths != nullptr) {
    door_->deaths->Expect(
        admission_.token,
        [sink = door_->sink, attachment = attachment_, worker = worker_,
         incarnation = admission_.incarnation, pid = pid_, start = process_start_] {
          std::string why = HowProcessEnded(pid, start);
          if (why.empty()) why = "its process ended";
          sink->OnDetached(worker, incarnation, why);
          attachment->Close(why);
        });
  }
  bool late = false;
  {
    absl::MutexLock lock(&door_->mu);
    late = door_->shut_down;
    door_->by_token[admission_.token] = attachment_;
  }
  attachment_->Admitted();
  if (late) attachment_->Close("the head is shutting down");
  return absl::OkStatus();
}

absl::Status WorkerConnection::Join(const std::string& token) {
  std::shared_ptr<WorkerAttachment> found;
  {
    absl::MutexLock lock(&door_->mu);
    auto it = door_->by_token.find(token);
    if (it != door_->by_token.end()) found = it->second;
  }
  if (found == nullptr) {
    return absl::FailedPreconditionError(
        "no attached worker has this token; attach first, then send the token of the Welcome");
  }
  attachment_ = found;
  state_ = State::kBulk;
  MoveToBulkLoop();
  return absl::OkStatus();
}

void WorkerConnection::MoveToBulkLoop() {
  const auto self = shared_from_this();
  loop_->Remove(socket_->fd());
  loop_ = door_->bulk;
  loop_->Post([self] {
    absl::Status status = self->loop_->Add(self->socket_->fd(), self);
    if (status.ok() && !self->attachment_->BulkCame(self->socket_)) {
      status = absl::FailedPreconditionError("the worker has a bulk stream already, or is going");
    }
    if (status.ok()) return self->OnFrames();  // what came behind its Hello
    self->attachment_ = nullptr;
    self->Refuse(status);
  });
}

void WorkerConnection::Refuse(const absl::Status& why) {
  LOG(WARNING) << "refused a worker's connection from " << net::PeerName(socket_->fd()) << ": "
               << why.message();
  if (attachment_ != nullptr) {
    attachment_->Close(why.message());
    return Over(/*lost=*/true);
  }
  state_ = State::kRefused;
  Say(ControlFrame::kEnd, wire::EncodeEnd(why));
  ::shutdown(socket_->fd(), SHUT_WR);
  door_->timers->Schedule(absl::Milliseconds(limits::kServerGraceMs), [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->CutOffIfNew();
  });
}

void WorkerConnection::Over(bool lost) {
  const auto self = shared_from_this();  // the loop's reference may be the last one
  const State was = state_.exchange(State::kGone);
  loop_->Remove(socket_->fd());
  if (was == State::kCommands) {
    Detach(lost);
    attachment_->Ended(Lane::kCommands, lost, absl::OkStatus());
  } else if (was == State::kBulk) {
    attachment_->Ended(Lane::kBulk, lost, absl::OkStatus());
  }
}

void WorkerConnection::Detach(bool lost) {
  if (door_->deaths != nullptr) door_->deaths->Forget(admission_.token);
  {
    absl::MutexLock lock(&door_->mu);
    door_->by_token.erase(admission_.token);
  }
  std::string why = attachment_->close_reason();
  if (why.empty()) why = farewell_;
  if (why.empty()) why = HowProcessEnded(pid_, process_start_);
  if (why.empty()) why = lost ? "its connection was lost" : "it closed its control stream";
  door_->sink->OnDetached(worker_, admission_.incarnation, why);
}

}  // namespace causeway::controller
