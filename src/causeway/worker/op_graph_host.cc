// Host programs: users' Python and files. Loaded, run and dropped on threads that may block.
//
// Launches of one stream of a session run one after the other in the order of their commands; all
// others run side by side. Arguments are copied to the host when they are there, so a later donation
// takes nothing away; results become ordinary buffers. Nothing here is a collective, so neither
// epochs nor the launch ledger take part.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "causeway/base/check.h"
#include "causeway/base/status_macros.h"
#include "causeway/model/dtype.h"
#include "causeway/model/sharding.h"
#include "causeway/worker/op_graph.h"

namespace causeway::worker {

struct OpGraph::HostBinding {
  std::string name;
  SessionId session;
  std::vector<Bind::Output> outputs;  // with this worker's shards alone
  bool loaded = false;                // or failed to
  absl::Status status;
  std::shared_ptr<device::HostProgram> program;
  int uses = 0;          // launches that did not end, and those that came before its end
  bool unbound = false;  // to be released once nothing uses it
};

struct OpGraph::HostLaunch {
  int64_t life = 0;  // of the worker; nobody waits for what an earlier one left
  HostStream stream;
  std::shared_ptr<HostBinding> binding;
  std::vector<ValueRef> args, outputs;  // outputs: null where no shard is here
  RequestId request;
  std::vector<device::HostValue> inputs;
  int copies_left = 0;
  // Programs that were unbound after this launch came: they end after it.
  std::vector<std::shared_ptr<HostBinding>> outlived;
  absl::Status status;  // of the inputs
  bool ready = false;   // the inputs are here, or in error
  bool running = false;
};

void OpGraph::BindHost(Binding& binding) {
  auto host = std::make_shared<HostBinding>();
  host->name = binding.source->name;
  host->session = binding.bind.session;
  host->outputs = std::move(binding.bind.host_outputs);
  for (Bind::Output& output : host->outputs) {
    auto elsewhere = [this](const Bind::Shard& shard) {
      return shard.device / options_.devices_per_host != options_.worker;
    };
    output.shards.erase(std::remove_if(output.shards.begin(), output.shards.end(), elsewhere),
                        output.shards.end());
  }
  binding.host = host;
  device::HostProgramSpec spec{.source = binding.source,
                               .devices = binding.bind.devices,
                               .worker = options_.worker,
                               .num_workers = options_.num_workers,
                               .devices_per_host = options_.devices_per_host};
  host_->RunBlocking([this, host, spec = std::move(spec)] {
    auto loaded = device_->LoadHostProgram(spec);
    host_->Post([this, host, loaded = std::move(loaded)]() mutable {
      host->loaded = true;
      host->status = loaded.status();
      if (loaded.ok()) host->program = *std::move(loaded);
      if (host->unbound && host->uses == 0) ReleaseHost(*host);
      PumpHostStreams();
    });
  });
}

void OpGraph::UnbindHost(const std::shared_ptr<HostBinding>& binding) {
  binding->unbound = true;
  // A method that is compiled anew for its second call finds its object through the program of the
  // first one: the object has to live until that call is over.
  for (const auto& [stream, launches] : host_streams_) {
    if (stream.first != binding->session) continue;
    for (const std::shared_ptr<HostLaunch>& launch : launches) {
      if (launch->binding == binding) continue;  // counted already
      launch->outlived.push_back(binding);
      ++binding->uses;
    }
  }
  if (binding->uses == 0) ReleaseHost(*binding);
}

// The end of a program may be the end of a user's objects: what the same session runs later has to
// find them gone.
void OpGraph::ReleaseHost(HostBinding& binding) {
  if (binding.program == nullptr) return;
  const SessionId session = binding.session;
  ++host_releases_[session];
  host_->RunBlocking([this, session, program = std::move(binding.program)]() mutable {
    program = nullptr;
    host_->Post([this, session] {
      const auto it = host_releases_.find(session);
      CHECK(it != host_releases_.end());
      if (--it->second == 0) host_releases_.erase(it);
      PumpHostStreams();
    });
  });
}

void OpGraph::RunHost(Launch launch, const std::shared_ptr<HostBinding>& binding) {
  auto run = std::make_shared<HostLaunch>();
  run->life = life_;
  run->stream = {binding->session, launch.stream};
  run->binding = binding;
  run->request = launch.request;
  for (const BufferId id : launch.args) run->args.push_back(Find(id));
  const size_t known = binding->outputs.size();
  if (launch.outputs.size() != known) {
    run->status = absl::InternalError(absl::StrCat(
        "the program has ", known, " outputs, the launch names ", launch.outputs.size()));
  }
  LaunchSeq after;
  for (const ValueRef& value : run->args) after = std::max(after, value->after);
  for (size_t i = 0; i < launch.outputs.size(); ++i) {
    const bool here = i < known && !binding->outputs[i].shards.empty();
    run->outputs.push_back(here ? NewOutput(launch.outputs[i]) : nullptr);
    if (here) run->outputs.back()->after = after;
  }
  ++binding->uses;
  host_streams_[run->stream].push_back(run);
  const std::vector<ValueRef> reads = run->args;
  Submit(reads, [this, run] { CaptureInputs(run); });
  Pump();
}

void OpGraph::CaptureInputs(const std::shared_ptr<HostLaunch>& launch) {
  auto one_done = [this, launch] {
    if (--launch->copies_left > 0) return;
    launch->ready = true;
    launch->args.clear();
    PumpHostStreams();
  };
  launch->copies_left = 1;
  for (const ValueRef& value : launch->args) launch->status.Update(value->error);
  if (launch->status.ok()) {
    launch->inputs.resize(launch->args.size());
    for (size_t a = 0; a < launch->args.size(); ++a) {
      const device::ArrayRef& array = launch->args[a]->array;
      const std::vector<int32_t>& devices = array->devices();
      launch->inputs[a].resize(devices.size());
      for (size_t s = 0; s < devices.size(); ++s) {
        launch->inputs[a][s].device = devices[s];
        auto copy = device_->StartHostCopy(array, devices[s]);
        if (!copy.ok()) {
          launch->status.Update(copy.status());
          continue;
        }
        ++launch->copies_left;
        host_->AwaitBytes(*std::move(copy), [this, launch, a, s, one_done](
                                                absl::StatusOr<device::HostShard> shard) {
          host_->Post([launch, a, s, one_done, shard = std::move(shard)]() mutable {
            launch->status.Update(shard.status());
            if (shard.ok()) launch->inputs[a][s].shard = *std::move(shard);
            one_done();
          });
        });
      }
    }
  }
  one_done();
}

void OpGraph::PumpHostStreams() {
  std::vector<std::shared_ptr<HostLaunch>> next;
  for (const auto& [stream, launches] : host_streams_) {
    const std::shared_ptr<HostLaunch>& front = launches.front();
    if (front->running || !front->ready || !front->binding->loaded) continue;
    if (host_releases_.contains(stream.first)) continue;
    front->running = true;
    next.push_back(front);
  }
  for (const std::shared_ptr<HostLaunch>& launch : next) {
    launch->status.Update(launch->binding->status);
    if (!launch->status.ok()) {
      FinishHost(*launch, launch->status);
      continue;
    }
    host_->RunBlocking([this, launch, program = launch->binding->program]() mutable {
      auto results = program->Run(launch->inputs);
      launch->inputs.clear();
      host_->Post([this, launch, program = std::move(program),
                   results = std::move(results)]() mutable {
        program = nullptr;  // the binding still holds it
        FinishHost(*launch, std::move(results));
      });
    });
  }
}

// A launch's outputs and what waits for them hold each other, as transfers do.
void OpGraph::ForgetHostLaunches(const absl::Status& cause) {
  for (const auto& [stream, launches] : std::exchange(host_streams_, {})) {
    for (const std::shared_ptr<HostLaunch>& launch : launches) {
      for (const ValueRef& output : launch->outputs) {
        if (output != nullptr && output->pending()) Resolve(output, cause);
      }
    }
  }
}

void OpGraph::FinishHost(HostLaunch& launch,
                         absl::StatusOr<std::vector<device::HostValue>> results) {
  HostBinding& binding = *launch.binding;
  if (--binding.uses == 0 && binding.unbound) ReleaseHost(binding);
  for (const auto& outlived : std::exchange(launch.outlived, {})) {
    if (--outlived->uses == 0) ReleaseHost(*outlived);
  }
  if (launch.life != life_) return;
  absl::Status status = results.status();
  if (status.ok() && results->size() != launch.outputs.size()) {
    status = absl::InvalidArgumentError(absl::StrCat(binding.name, " returned ", results->size(),
                                                     " arrays where its specification has ",
                                                     launch.outputs.size()));
  }
  for (size_t i = 0; i < launch.outputs.size(); ++i) {
    const ValueRef& output = launch.outputs[i];
    if (output == nullptr) continue;
    if (!status.ok()) {
      Resolve(output, status);
      continue;
    }
    absl::StatusOr<device::ArrayRef> made = HostResult(binding.outputs[i], (*results)[i]);
    if (!made.ok()) {
      status = absl::Status(made.status().code(),
                            absl::StrCat("result ", i, " of ", binding.name, ": ",
                                         std::string(made.status().message())));
      made = status;
    }
    Resolve(output, std::move(made));
  }
  if (launch.request != RequestId(0)) {
    host_->Emit(Reply{.request = launch.request, .status = status});
  }
  const auto it = host_streams_.find(launch.stream);
  CHECK(it != host_streams_.end() && it->second.front().get() == &launch);
  it->second.pop_front();
  if (it->second.empty()) host_streams_.erase(it);
  Pump();
  host_->Post([this] { PumpHostStreams(); });
}

absl::StatusOr<device::ArrayRef> OpGraph::HostResult(const Bind::Output& output,
                                                     const device::HostValue& result) {
  const int64_t width = model::HostByteWidth(static_cast<model::DType>(output.dtype));
  device::BuildRequest request{.dtype = output.dtype, .memory_kind = output.memory_kind,
                               .shards = {}};
  for (const Bind::Shard& want : output.shards) {
    const auto found =
        std::find_if(result.begin(), result.end(),
                     [&want](const device::HostPart& part) { return part.device == want.device; });
    if (found == result.end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "it has no shard on device ", want.device, ", where its specification has one"));
    }
    const device::HostShard& shard = found->shard;
    if (shard.dims != want.dims) {
      return absl::InvalidArgumentError(absl::StrCat(
          "its shard on device ", want.device, " has shape [", absl::StrJoin(shard.dims, ","),
          "] where its specification has [", absl::StrJoin(want.dims, ","), "]"));
    }
    const int64_t bytes = model::NumElements(shard.dims) * width;
    if (width >= 0 && static_cast<int64_t>(shard.bytes->size()) != bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("its shard on device ", want.device, " has ", shard.bytes->size(),
                       " bytes where its specification has ", bytes));
    }
    request.shards.push_back({.kind = device::ShardSource::Kind::kHost,
                              .device = want.device,
                              .dims = shard.dims,
                              .bytes = shard.bytes});
  }
  return device_->Build(request);
}

}  // namespace causeway::worker
