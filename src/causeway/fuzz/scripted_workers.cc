// Answers of workers that compute nothing.
#include "causeway/fuzz/scripted_workers.h"

#include <algorithm>
#include <utility>

#include "causeway/core/worker_link.h"
#include "causeway/model/dtype.h"

namespace causeway::fuzz {
namespace {

// Answers to reads stay small whatever an input claims about its arrays.
constexpr int64_t kReadBytesMax = 1 << 12;

int64_t Bytes(int32_t dtype, const google::protobuf::RepeatedField<int64_t>& dims) {
  if (!model::IsKnownDType(dtype)) return 0;
  int64_t bytes = std::max<int64_t>(0, model::HostByteWidth(static_cast<model::DType>(dtype)));
  for (int64_t dim : dims) {
    if (dim <= 0) return 0;
    if (bytes > kReadBytesMax / dim) return kReadBytesMax;
    bytes *= dim;
  }
  return bytes;
}

}  // namespace

class ScriptedWorkers::Link : public core::WorkerLink {
 public:
  void Send(std::shared_ptr<const std::string> command) override {
    if (!closed) commands.push_back(std::move(command));
  }
  void SendData(TransferId, absl::StatusOr<absl::Cord>) override {}
  void Close(absl::string_view) override { closed = true; }
  int64_t queued_bytes() const override { return 0; }

  std::deque<std::shared_ptr<const std::string>> commands;
  bool closed = false;
};

ScriptedWorkers::ScriptedWorkers(controller::Controller& controller, int workers,
                                 int devices_per_worker)
    : controller_(controller), devices_(devices_per_worker), workers_(workers) {}

ScriptedWorkers::~ScriptedWorkers() = default;

void ScriptedWorkers::Attach(int w) {
  Worker& worker = workers_[w];
  if (worker.link != nullptr) return;
  auto link = std::make_shared<Link>();
  core::WorkerHello hello;
  hello.worker = WorkerId(w);
  hello.pid = 100 + w;
  hello.host = "here";
  hello.num_devices = devices_;
  hello.memory_kinds = {"device", "pinned_host"};
  auto admission = controller_.OnAttached(hello, link);
  if (!admission.ok()) return;
  worker = Worker{.link = std::move(link), .incarnation = admission->incarnation};
}

void ScriptedWorkers::Lose(int w) {
  Worker& worker = workers_[w];
  if (worker.link == nullptr) return;
  worker.link = nullptr;
  controller_.OnDetached(WorkerId(w), worker.incarnation, "the stream broke");
}

bool ScriptedWorkers::Step(int w) {
  Worker& worker = workers_[w];
  if (worker.link == nullptr) return false;
  if (worker.link->closed) {
    Lose(w);
    return true;
  }
  if (worker.link->commands.empty()) return false;
  control::Command command;
  command.ParseFromString(*worker.link->commands.front());
  worker.link->commands.pop_front();
  Answer(worker, WorkerId(w), command);
  return true;
}

void ScriptedWorkers::StepAll() {
  bool progress = true;
  while (progress) {
    progress = false;
    for (int w = 0; w < static_cast<int>(workers_.size()); ++w) progress |= Step(w);
  }
}

void ScriptedWorkers::Inject(int w, const std::string& event) {
  if (workers_[w].link != nullptr) {
    controller_.OnEvent(WorkerId(w), workers_[w].incarnation, event);
  }
}

void ScriptedWorkers::FailNextLaunch(int w, int code, bool peer_failure) {
  workers_[w].failing_code = code;
  workers_[w].peer_failure = peer_failure;
}

void ScriptedWorkers::Send(WorkerId id, const Worker& worker, const control::Event& event) {
  controller_.OnEvent(id, worker.incarnation, event.SerializeAsString());
}

void ScriptedWorkers::Reply(WorkerId id, const Worker& worker, uint64_t request) {
  control::Event event;
  event.mutable_reply()->set_request(request);
  event.mutable_reply()->mutable_status();
  Send(id, worker, event);
}

void ScriptedWorkers::Answer(Worker& worker, WorkerId id, const control::Command& command) {
  control::Event event;
  switch (command.command_case()) {
    case control::Command::kOpenEpoch:
      event.mutable_epoch_opened()->set_epoch(command.open_epoch().epoch());
      event.mutable_epoch_opened()->mutable_status();
      return Send(id, worker, event);
    case control::Command::kBuild:
      for (const control::ShardBuild& shard : command.build().shards()) {
        shard_bytes_[{command.build().buffer(), shard.device()}] =
            Bytes(command.build().dtype(), shard.dims());
      }
      return;
    case control::Command::kCompile: {
      if (compile_.outputs().empty()) {
        control::ArrayType* output = compile_.add_outputs();
        output->set_dtype(static_cast<int>(model::DType::kF32));
        output->add_dims(4);
      }
      output_bytes_[command.compile().program()] =
          Bytes(compile_.outputs(0).dtype(), compile_.outputs(0).dims());
      event.mutable_reply()->set_request(command.compile().request());
      event.mutable_reply()->mutable_status();
      *event.mutable_reply()->mutable_compile() = std::move(compile_);
      compile_.Clear();
      return Send(id, worker, event);
    }
    case control::Command::kBind:
      programs_[command.bind().binding()] = command.bind().program();
      return;
    case control::Command::kLaunch: {
      const control::Launch& launch = command.launch();
      for (uint64_t output : launch.outputs()) {
        for (int d = 0; d < devices_; ++d) {
          shard_bytes_[{output, id.value() * devices_ + d}] =
              output_bytes_[programs_[launch.binding()]];
        }
      }
      if (launch.seq() != 0 && worker.failing_code != 0) {
        auto* failed = event.mutable_launch_failed();
        failed->set_epoch(launch.epoch());
        failed->set_seq(launch.seq());
        failed->mutable_status()->set_code(worker.failing_code);
        failed->set_peer_failure(worker.peer_failure);
        worker.failing_code = 0;
        Send(id, worker, event);
      } else if (launch.seq() != 0) {
        event.mutable_launch_done()->set_epoch(launch.epoch());
        event.mutable_launch_done()->set_seq(launch.seq());
        Send(id, worker, event);
      }
      if (launch.request() != 0) Reply(id, worker, launch.request());
      return;
    }
    case control::Command::kFetch:
      for (int32_t device : command.fetch().devices()) {
        const int64_t bytes = shard_bytes_[{command.fetch().buffer(), device}];
        auto* data = event.mutable_fetch_data();
        data->set_request(command.fetch().request());
        data->set_device(device);
        data->set_total(bytes);
        data->set_bytes(std::string(static_cast<size_t>(bytes), 'x'));
        Send(id, worker, event);
      }
      return Reply(id, worker, command.fetch().request());
    case control::Command::kAwaitReady:
      return Reply(id, worker, command.await_ready().request());
    case control::Command::kIntrospect:
      event.mutable_reply()->set_request(command.introspect().request());
      event.mutable_reply()->mutable_status();
      event.mutable_reply()->set_text("HloModule m");
      (*event.mutable_reply()->mutable_numbers())["flops"] = 1;
      return Send(id, worker, event);
    case control::Command::kPing:
      event.mutable_pong()->set_number(command.ping().number());
      return Send(id, worker, event);
    case control::Command::kFree:
      for (uint64_t buffer : command.free().buffers()) {
        shard_bytes_.erase(shard_bytes_.lower_bound({buffer, -1}),
                           shard_bytes_.upper_bound({buffer, 1 << 30}));
      }
      return;
    default:
      return;
  }
}

}  // namespace causeway::fuzz
