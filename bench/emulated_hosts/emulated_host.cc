// What an emulated host answers to each command.
#include "bench/emulated_hosts/emulated_host.h"

#include <unistd.h>

#include <cctype>

#include "absl/strings/str_cat.h"
#include "causeway/model/dtype.h"
#include "causeway/model/sharding.h"
#include "causeway/wire/ifrt_sharding.h"

namespace causeway::bench {
namespace {

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
    status->set_code(static_cast<int>(grpc::StatusCode::UNIMPLEMENTED));
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

EmulatedHost::EmulatedHost(const std::string& head, int worker) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(-1);
  channel_ = grpc::CreateCustomChannel(head, grpc::InsecureChannelCredentials(), arguments);
  stub_ = control::WorkerControl::NewStub(channel_);
  stub_->async()->Attach(&context_, this);
  control::FromWorker first;
  control::Hello& hello = *first.add_events()->mutable_hello();
  hello.set_worker(worker);
  hello.set_pid(getpid());
  hello.set_host("emulated");
  hello.set_data_address(absl::StrCat("127.0.0.1:", 1 + worker));
  hello.set_platform("cpu");
  hello.set_device_kind("cpu");
  hello.add_memory_kinds("device");
  hello.set_runtime_version("emulated");
  hello.set_num_devices(1);
  // Held until Stop, so that the stream outlives moments without reads and writes.
  AddHold();
  Send(first);
  StartRead(&incoming_);
  StartCall();
}

void EmulatedHost::Stop() {
  {
    absl::MutexLock lock(&mu_);
    if (stopped_) return;
    stopped_ = true;
  }
  context_.TryCancel();
  RemoveHold();
}

grpc::Status EmulatedHost::Wait() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&done_));
  return status_;
}

void EmulatedHost::OnReadDone(bool ok) {
  if (!ok) {
    Stop();
    return;
  }
  control::FromWorker answers;
  control::Command command;
  for (const std::string& bytes : incoming_.commands()) {
    if (command.ParseFromString(bytes)) Handle(command, &answers);
  }
  if (answers.events_size() > 0) Send(answers);
  StartRead(&incoming_);
}

void EmulatedHost::Handle(const control::Command& command, control::FromWorker* answers) {
  switch (command.command_case()) {
    case control::Command::kLaunch: {
      const control::Launch& launch = command.launch();
      ++launches_;
      if (launch.request() != 0)
        answers->add_events()->mutable_reply()->set_request(launch.request());
      if (launch.seq() == 0) return;
      // One confirmation speaks for all launches before it.
      control::Event* event = answers->events_size() > 0
                                  ? answers->mutable_events(answers->events_size() - 1)
                                  : nullptr;
      if (event == nullptr || !event->has_launch_done() ||
          event->launch_done().epoch() != launch.epoch()) {
        event = answers->add_events();
      }
      event->mutable_launch_done()->set_epoch(launch.epoch());
      event->mutable_launch_done()->set_seq(launch.seq());
      return;
    }
    case control::Command::kOpenEpoch:
      answers->add_events()->mutable_epoch_opened()->set_epoch(command.open_epoch().epoch());
      return;
    case control::Command::kCompile:
      Compile(command.compile(), answers->add_events()->mutable_reply());
      return;
    case control::Command::kAwaitReady:
      answers->add_events()->mutable_reply()->set_request(command.await_ready().request());
      return;
    case control::Command::kFetch: {
      const control::Fetch& fetch = command.fetch();
      for (int device : fetch.devices()) {
        control::FetchData& data = *answers->add_events()->mutable_fetch_data();
        data.set_request(fetch.request());
        data.set_device(device);
        data.set_total(kFloatBytes);
        data.set_bytes(std::string(kFloatBytes, '\0'));
      }
      answers->add_events()->mutable_reply()->set_request(fetch.request());
      return;
    }
    case control::Command::kIntrospect: {
      control::Reply& reply = *answers->add_events()->mutable_reply();
      reply.set_request(command.introspect().request());
      reply.mutable_status()->set_code(static_cast<int>(grpc::StatusCode::UNIMPLEMENTED));
      reply.mutable_status()->set_message("an emulated host has no programs");
      return;
    }
    case control::Command::kPing:
      answers->add_events()->mutable_pong()->set_number(command.ping().number());
      return;
    case control::Command::kShutdown:
      Stop();
      return;
    default:  // what leaves nothing to answer
      return;
  }
}

void EmulatedHost::Send(const control::FromWorker& answers) {
  absl::MutexLock lock(&mu_);
  waiting_.MergeFrom(answers);
  Pump();
}

void EmulatedHost::Pump() {
  if (in_write_ || waiting_.events_size() == 0 || stopped_) return;
  writing_.Swap(&waiting_);
  waiting_.Clear();
  in_write_ = true;
  StartWrite(&writing_);
}

void EmulatedHost::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mu_);
  in_write_ = false;
  if (ok) Pump();
}

void EmulatedHost::OnDone(const grpc::Status& status) {
  absl::MutexLock lock(&mu_);
  status_ = status;
  done_ = true;
}

}  // namespace causeway::bench
