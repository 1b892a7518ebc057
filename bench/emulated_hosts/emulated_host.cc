// What an emulated host answers to each command.
#include "bench/emulated_hosts/emulated_host.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/limits.h"
#include "causeway/base/status_macros.h"
#include "causeway/model/dtype.h"
#include "causeway/model/sharding.h"
#include "causeway/wire/control_frames.h"
#include "causeway/wire/ifrt_sharding.h"

namespace causeway::bench {
namespace {

using wire::ControlFrame;

constexpr int kFloatBytes = 4;

// The number in the program's name, which stands as plain text in its artifact; 1 without one.
int NumOutputs(absl::string_view code) {
  constexpr absl::string_view kMark = "_outputs_";
  const size_t at = code.find(kMark);
  if (at == absl::string_view::npos) return 1;
  int count = 0;
  for (char c : code.substr(at + kMark.size())) {
    if (!std::isdigit(static_cast<unsigned char>(c)) || count > 10000) break;
    count = count * 10 + (c - '0');
  }
  return count;
}

void Compile(const control::Compile& compile, control::Reply* reply) {
  reply->set_request(compile.request());
  control::CompileResult& result = *reply->mutable_compile();
  result.set_name("emulated");
  result.set_serialized("emulated");
  // The client takes its defaults for layouts that are not told.
  for (control::Status* status :
       {result.mutable_parameter_layouts_status(), result.mutable_output_layouts_status(),
        result.mutable_memory_stats_status()}) {
    status->set_code(static_cast<int>(absl::StatusCode::kUnimplemented));
    status->set_message("an emulated host compiles nothing");
  }
  result.set_has_output_shardings(true);
  const std::string replicated = wire::SerializeOpSharding(model::OpSharding());
  for (int i = 0; i < NumOutputs(compile.code()); ++i) {
    result.add_outputs()->set_dtype(static_cast<int>(model::DType::kF32));
    result.add_output_shardings(replicated);
    result.add_output_memory_kinds("device");
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<EmulatedHost>> EmulatedHost::Start(net::EventLoop& loop,
                                                                  const std::string& head,
                                                                  int worker) {
  ASSIGN_OR_RETURN(const net::Address address, net::ParseAddress(head));
  ASSIGN_OR_RETURN(net::Socket socket, net::Connect(address.host, address.port));
  control::Event first;
  control::Hello& hello = *first.mutable_hello();
  hello.set_worker(worker);
  hello.set_pid(getpid());
  hello.set_host("emulated");
  hello.set_data_address(absl::StrCat("127.0.0.1:", 1 + worker));
  hello.set_platform("cpu");
  hello.set_device_kind("cpu");
  hello.add_memory_kinds("device");
  hello.set_runtime_version("emulated");
  hello.set_num_devices(1);
  std::string greeting;
  net::AppendFrame(Kind(ControlFrame::kAttach), first.SerializeAsString(), &greeting);
  RETURN_IF_ERROR(net::SendAll(socket.fd(), greeting));
  auto host = std::make_shared<EmulatedHost>(loop, std::move(socket));
  loop.Post([host] {
    if (!host->loop_.Add(host->socket_.fd(), host).ok()) host->over_.Notify();
  });
  return host;
}

EmulatedHost::EmulatedHost(net::EventLoop& loop, net::Socket socket)
    : loop_(loop), socket_(std::move(socket)), reader_(limits::kMessageBytesMax) {}

void EmulatedHost::Stop() { ::shutdown(socket_.fd(), SHUT_RDWR); }

void EmulatedHost::OnReadable() {
  const absl::Span<char> space = reader_.Space();
  const ssize_t size = ::recv(socket_.fd(), space.data(), space.size(), MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  bool over = size <= 0;
  if (!over) reader_.Received(static_cast<size_t>(size));
  while (!over) {
    const auto frame = reader_.Next();
    over = !frame.ok();
    if (over || !frame->has_value()) break;
    over = (*frame)->kind == Kind(ControlFrame::kEnd);
    const absl::string_view bytes = (*frame)->payload;
    if (command_.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) Handle(command_);
  }
  if (over) {
    const auto self = shared_from_this();
    loop_.Remove(socket_.fd());
    ::shutdown(socket_.fd(), SHUT_RDWR);
    over_.Notify();
    return;
  }
  Send();
}

void EmulatedHost::Answer(const control::Event& event) {
  if (confirmation_.has_launch_done()) {
    net::AppendFrame(Kind(ControlFrame::kMessage), confirmation_.SerializeAsString(), &answers_);
    confirmation_.Clear();
  }
  net::AppendFrame(Kind(ControlFrame::kMessage), event.SerializeAsString(), &answers_);
}

void EmulatedHost::Reply(uint64_t request) {
  control::Event event;
  event.mutable_reply()->set_request(request);
  Answer(event);
}

void EmulatedHost::Confirm(const control::Launch& launch) {
  ++launches_;
  if (launch.request() != 0) Reply(launch.request());
  if (launch.seq() == 0) return;
  // One confirmation speaks for all launches before it.
  confirmation_.mutable_launch_done()->set_epoch(launch.epoch());
  confirmation_.mutable_launch_done()->set_seq(launch.seq());
}

void EmulatedHost::Handle(const control::Command& command) {
  control::Event event;
  switch (command.command_case()) {
    case control::Command::kLaunch:
      return Confirm(command.launch());
    case control::Command::kOpenEpoch:
      event.mutable_epoch_opened()->set_epoch(command.open_epoch().epoch());
      return Answer(event);
    case control::Command::kCompile:
      Compile(command.compile(), event.mutable_reply());
      return Answer(event);
    case control::Command::kAwaitReady:
      return Reply(command.await_ready().request());
    case control::Command::kFetch:
      for (int device : command.fetch().devices()) {
        control::FetchData& data = *event.mutable_fetch_data();
        data.set_request(command.fetch().request());
        data.set_device(device);
        data.set_total(kFloatBytes);
        data.set_bytes(std::string(kFloatBytes, '\0'));
        Answer(event);
      }
      return Reply(command.fetch().request());
    case control::Command::kIntrospect:
      event.mutable_reply()->set_request(command.introspect().request());
      event.mutable_reply()->mutable_status()->set_code(
          static_cast<int>(absl::StatusCode::kUnimplemented));
      event.mutable_reply()->mutable_status()->set_message("an emulated host has no programs");
      return Answer(event);
    case control::Command::kPing:
      event.mutable_pong()->set_number(command.ping().number());
      return Answer(event);
    case control::Command::kShutdown:
      return Stop();
    default:  // what leaves nothing to answer
      return;
  }
}

void EmulatedHost::Send() {
  if (confirmation_.has_launch_done()) {
    net::AppendFrame(Kind(ControlFrame::kMessage), confirmation_.SerializeAsString(), &answers_);
    confirmation_.Clear();
  }
  if (!answers_.empty()) {
    const ssize_t sent =
        ::send(socket_.fd(), answers_.data(), answers_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) answers_.erase(0, static_cast<size_t>(sent));
  }
  if (answers_.empty() == waiting_) {
    waiting_ = !answers_.empty();
    loop_.SetWritable(socket_.fd(), waiting_);
  }
}

void EmulatedHost::OnWritable() { Send(); }

}  // namespace causeway::bench
