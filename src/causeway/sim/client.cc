// The operations of a simulated client.
#include "causeway/sim/client.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "causeway/base/check.h"
#include "causeway/model/sharding.h"

namespace causeway::sim {
namespace {

constexpr int kLength = 2;         // elements of a shard
constexpr size_t kMostArrays = 24;
constexpr double kLargest = 1e11;  // sums beyond it would not be exact

// Bytes that come now or a little later.
class Bytes final : public core::HostBytes {
 public:
  Bytes(World& world, std::string text, absl::Duration after)
      : world_(world), text_(std::move(text)), after_(after) {}
  void OnReady(absl::AnyInvocable<void(absl::StatusOr<absl::Cord>) &&> done) override {
    if (after_ == absl::ZeroDuration()) {
      std::move(done)(absl::Cord(text_));
      return;
    }
    world_.scheduler.Schedule(after_, [text = text_, done = std::move(done)]() mutable {
      std::move(done)(absl::Cord(text));
    });
  }

 private:
  World& world_;
  const std::string text_;
  const absl::Duration after_;
};

std::string Pack(const std::vector<double>& values) {
  std::string out(values.size() * sizeof(double), '\0');
  std::memcpy(out.data(), values.data(), out.size());
  return out;
}

std::vector<double> Unpack(const absl::Cord& bytes) {
  const std::string flat(bytes);
  std::vector<double> out(flat.size() / sizeof(double));
  std::memcpy(out.data(), flat.data(), out.size() * sizeof(double));
  return out;
}

}  // namespace

Client::Client(World& world, int index)
    : world_(world),
      index_(index),
      random_(world.plan.seed * 31 + static_cast<uint64_t>(index) + 77),
      operations_left_(world.plan.operations) {}

void Client::Start() {
  OpenSession();
  Next();
}

void Client::OpenSession() {
  session_ = world_.controller->OpenSession(absl::StrCat("client-", index_));
  ++generation_;
  arrays_.clear();
  executables_.clear();
  questions_.clear();
  next_handle_ = 1;
}

void Client::Next() {
  if (operations_left_ == 0) return;
  world_.scheduler.Schedule(world_.plan.think_max * random_.Unit(), [this] {
    Operate();
    --operations_left_;
    Next();
  });
}

int Client::Ask(std::string what) {
  world_.Note("client ", index_, ": ", what);
  questions_[next_question_] = std::move(what);
  return next_question_++;
}

void Client::Answered(int question) { questions_.erase(question); }

std::string Client::Outstanding() const {
  std::vector<std::string> all;
  for (const auto& [id, what] : questions_) all.push_back(what);
  return absl::StrCat("client ", index_, ": ", absl::StrJoin(all, "; "));
}

// True when the operation succeeded; an error that nothing excuses is a violation.
bool Client::ShouldRun(const char* what, const Lineage& lineage, const absl::Status& status) {
  if (status.ok()) return true;
  ++world_.errors_seen;
  world_.Note("client ", index_, ": ", what, " fails: ", status.ToString());
  const std::string wrong = lineage.Judge(world_, status);
  if (!wrong.empty()) world_.Violation("client ", index_, " ", what, ": ", wrong);
  return false;
}

// ---------------------------------------------------------------- the model's tables

const std::vector<DeviceId>& Client::AnyList() {
  return world_.plan.lists[random_.Below(2) == 0 ? 0 : random_.Below(world_.plan.lists.size())];
}

std::vector<int> Client::WorkersOf(const std::vector<DeviceId>& devices) const {
  std::vector<int> workers;
  for (const DeviceId d : devices) {
    const int w = d.value() / world_.plan.shape.devices_per_host;
    if (std::find(workers.begin(), workers.end(), w) == workers.end()) workers.push_back(w);
  }
  return workers;
}

Lineage Client::NewLineage(const std::vector<DeviceId>& devices) const {
  Lineage lineage;
  for (const int w : WorkersOf(devices)) lineage.Needs(world_, w);
  return lineage;
}

core::ArraySpec Client::SpecOf(const std::vector<DeviceId>& devices, bool tiled) const {
  core::ArraySpec spec;
  spec.dtype = model::DType::kF64;
  const auto n = static_cast<int64_t>(devices.size());
  spec.shape = {tiled ? kLength * n : kLength};
  model::OpSharding op;
  if (tiled && n > 1) {
    op.type = model::OpSharding::Type::kOther;
    op.tile_dims = {n};
    for (int64_t i = 0; i < n; ++i) op.tile_devices.push_back(i);
  }
  auto sharding = n == 1 ? model::Sharding::SingleDevice(devices[0], "device")
                         : *model::Sharding::Hlo(devices, "device", op);
  spec.sharding = std::move(sharding);
  return spec;
}

ModelArrayRef Client::Pick(bool alive_only) {
  std::vector<ModelArrayRef> found;
  for (const ModelArrayRef& array : arrays_) {
    if (!alive_only || !array->deleted()) found.push_back(array);
  }
  return found.empty() ? nullptr : found[random_.Below(found.size())];
}

ModelArrayRef Client::Add(ModelArray array) {
  if (array.deleted_marks.empty()) array.deleted_marks = {std::make_shared<bool>(false)};
  arrays_.push_back(std::make_shared<ModelArray>(std::move(array)));
  const ModelArrayRef added = arrays_.back();
  if (arrays_.size() > kMostArrays) Forget(arrays_[random_.Below(arrays_.size() - 1)]);
  return added;
}

void Client::Forget(const ModelArrayRef& array) {
  world_.Note("client ", index_, ": destruct ", array->handle.value());
  const absl::Status status = world_.controller->Destruct(session_, {array->handle});
  if (!status.ok()) world_.Violation("destruct fails: ", status.ToString());
  const ModelArrayRef held = array;  // `array` may be the table's own
  arrays_.erase(std::find(arrays_.begin(), arrays_.end(), held));
}

// ---------------------------------------------------------------- operations

void Client::Operate() {
  if (arrays_.size() < 2) {
    Upload();
    return;
  }
  // What no client holds the head may forget: the disk remembers it.
  if (world_.plan.disk && random_.Below(4) == 0) LetGo();
  const uint64_t draw = random_.Below(100);
  if (draw < 14) {
    Upload();
  } else if (draw < 54) {
    Launch();
  } else if (draw < 64) {
    Copy();
  } else if (draw < 71) {
    Reshard();
  } else if (draw < 75) {
    Disassemble();
  } else if (draw < 87) {
    if (const ModelArrayRef array = Pick()) Read(array);
  } else if (draw < 92) {
    AwaitReady();
  } else if (draw < 95) {
    Delete();
  } else if (draw < 99) {
    if (const ModelArrayRef array = Pick(/*alive_only=*/false)) Forget(array);
  } else {
    Leave();
  }
}

void Client::Upload() {
  UploadTo(AnyList(), random_.Below(4) == 0, static_cast<int>(random_.Below(3)));
}

// `variety` 0: one host buffer for all shards; else one a shard, all different.
ModelArrayRef Client::UploadTo(const std::vector<DeviceId>& devices, bool tiled, int variety) {
  ModelArray array;
  array.handle = ArrayHandle(next_handle_++);
  array.devices = devices;
  array.tiled = tiled && devices.size() > 1;
  array.lineage = NewLineage(devices);
  const core::ArraySpec spec = SpecOf(devices, array.tiled);
  auto number = [this] { return static_cast<double>(1 + random_.Below(999)); };
  auto bytes = [this](const std::vector<double>& values) {
    const absl::Duration after = random_.Below(3) == 0 ? world_.plan.think_max * random_.Unit()
                                                       : absl::ZeroDuration();
    return std::make_shared<Bytes>(world_, Pack(values), after);
  };
  std::vector<core::HostShards> sources;
  const int n = static_cast<int>(devices.size());
  if (variety == 0) {
    core::HostShards source;
    std::vector<double> whole(array.tiled ? static_cast<size_t>(kLength * n) : kLength);
    for (double& v : whole) v = number();
    for (int i = 0; i < n; ++i) {
      const auto begin = whole.begin() + (array.tiled ? i * kLength : 0);
      array.values.emplace_back(begin, begin + kLength);
      source.shard_indices.push_back(i);
    }
    source.holds_whole_array = true;
    source.shape = spec.shape;
    source.bytes = bytes(whole);
    sources.push_back(std::move(source));
  } else {
    for (int i = 0; i < n; ++i) {
      array.values.push_back({number(), number()});
      core::HostShards source;
      source.shard_indices = {i};
      source.shape = {kLength};
      source.bytes = bytes(array.values.back());
      sources.push_back(std::move(source));
    }
  }
  world_.Note("client ", index_, ": upload ", array.handle.value(), " to ", n, " devices");
  const absl::Status status =
      world_.controller->MakeArray(session_, array.handle, spec, std::move(sources));
  ShouldRun("upload", array.lineage, status);
  return Add(std::move(array));
}

const Client::Executable* Client::Compiled(const ModelProgram& program,
                                           const std::vector<DeviceId>& devices, Done then) {
  Executable& executable = executables_[{program.Text(kLength), devices}];
  if (executable.handle.value() != 0) return &executable;
  if (executable.asked) return nullptr;
  executable.asked = true;
  core::CompileRequest request;
  request.program = program.Text(kLength);
  request.devices = devices;
  const int question = Ask(absl::StrCat("compile ", program.Text(kLength)));
  Lineage anyone;  // compiles move to another worker, but not for ever
  for (int w = 0; w < world_.plan.shape.num_workers(); ++w) anyone.Needs(world_, w);
  world_.controller->Compile(
      session_, std::move(request),
      [this, question, anyone, then = std::move(then), generation = generation_,
       key = std::pair(program.Text(kLength), devices)](
          absl::StatusOr<std::shared_ptr<const core::ExecutableView>> view) {
        if (generation != generation_) return;
        Answered(question);
        Executable& executable = executables_[key];
        executable.asked = false;
        if (view.ok()) {
          executable.handle = (*view)->handle;
        } else if (view.status().code() != absl::StatusCode::kUnavailable ||
                   !std::any_of(world_.down.begin(), world_.down.end(), [](bool d) { return d; })) {
          ShouldRun("compile", anyone, view.status());
        }
        if (then) then();
      });
  return executable.handle.value() != 0 ? &executable : nullptr;
}

void Client::Launch() {
  const ModelArrayRef first = Pick();
  if (first == nullptr || first->largest() > kLargest) {
    Upload();
    return;
  }
  ModelProgram program;
  program.kind = static_cast<ModelProgram::Kind>(random_.Below(ModelProgram::kKinds));
  program.constant = 1 + static_cast<int>(random_.Below(2));
  std::vector<ModelArrayRef> inputs = {first};
  if (program.inputs() == 2) {
    std::vector<ModelArrayRef> fits;
    for (const ModelArrayRef& array : arrays_) {
      if (!array->deleted() && array->devices == first->devices && array->largest() <= kLargest) {
        fits.push_back(array);
      }
    }
    inputs.push_back(fits[random_.Below(fits.size())]);
  }
  if (Compiled(program, first->devices) == nullptr) return;
  Run(program, inputs, random_.Below(4) == 0);
}

std::vector<ModelArrayRef> Client::Run(const ModelProgram& program,
                                       const std::vector<ModelArrayRef>& inputs,
                                       bool want_status) {
  const Executable* executable = Compiled(program, inputs[0]->devices);
  CHECK(executable != nullptr);
  core::ExecuteRequest request;
  request.executable = executable->handle;
  Lineage lineage = NewLineage(inputs[0]->devices);
  std::vector<const ModelArray*> values;
  for (const ModelArrayRef& input : inputs) {
    request.args.push_back(input->handle);
    lineage.Merge(input->lineage);
    values.push_back(input.get());
  }
  // Breaking an epoch off ends all collectives on a host, also those of a program on it alone.
  if (WorkersOf(inputs[0]->devices).size() > 1 || inputs[0]->devices.size() > 1) {
    lineage.NeedsEpoch(world_);
  }
  const bool protect = program.donates() && random_.Below(4) == 0;
  if (protect) request.non_donatable = {0};
  request.want_status = want_status;
  std::vector<ModelArray> made(static_cast<size_t>(program.outputs()));
  const auto results = program.Run(values);
  for (size_t o = 0; o < made.size(); ++o) {
    made[o].handle = ArrayHandle(next_handle_++);
    made[o].devices = inputs[0]->devices;
    made[o].values = results[o];
    made[o].lineage = lineage;
    request.results.push_back(made[o].handle);
  }
  if (want_status) request.status = StatusHandle(next_handle_++);
  world_.Note("client ", index_, ": run ", program.Text(kLength), " on ",
              inputs[0]->devices.size(), " devices: ", inputs[0]->handle.value(), " -> ",
              made[0].handle.value());
  const bool shaken = lineage.Shaken(world_);
  const auto answer = world_.controller->Execute(session_, request);
  ShouldRun("execute", lineage, answer.status());
  if (program.donates() && !protect) {
    inputs[0]->MarkDeleted();
    // A launch that was refused for a loss took nothing over: nothing is known of the input.
    if (shaken || !answer.ok()) Forget(inputs[0]);
  }
  std::vector<ModelArrayRef> out;
  for (ModelArray& array : made) out.push_back(Add(std::move(array)));
  if (want_status && answer.ok()) {
    const int question = Ask(absl::StrCat("await execution ", request.status.value()));
    world_.controller->AwaitExecution(
        session_, request.status,
        [this, question, lineage, generation = generation_](const auto& times) {
          if (generation != generation_) return;
          Answered(question);
          ShouldRun("await execution", lineage, times.status());
        });
  }
  return out;
}

void Client::Copy() {
  const ModelArrayRef from = Pick();
  if (from == nullptr) return;
  std::vector<DeviceId> to = AnyList();
  if (to.size() < from->devices.size()) to = from->devices;
  to.resize(from->devices.size());
  const uint64_t draw = random_.Below(6);
  const auto semantics = draw == 0   ? core::CopySemantics::kDonateInput
                         : draw == 1 ? core::CopySemantics::kAlwaysCopy
                                     : core::CopySemantics::kReuseInput;
  const bool always = semantics == core::CopySemantics::kAlwaysCopy;
  ModelArray made;
  made.handle = ArrayHandle(next_handle_++);
  made.devices = to;
  made.tiled = from->tiled;
  made.values = from->values;
  made.lineage = NewLineage(to);
  made.lineage.Merge(from->lineage);
  const bool same = !always && to == from->devices;
  if (same) {
    made.deleted_marks = from->deleted_marks;
  } else {
    made.deleted_marks = {std::make_shared<bool>(false)};
    for (size_t i = 0; i < to.size(); ++i) {
      if (always || to[i] != from->devices[i]) continue;
      made.deleted_marks.insert(made.deleted_marks.end(), from->deleted_marks.begin(),
                                from->deleted_marks.end());
    }
  }
  world_.Note("client ", index_, ": copy ", from->handle.value(), " -> ", made.handle.value());
  const bool shaken = made.lineage.Shaken(world_);
  const absl::Status status = world_.controller->CopyArrays(session_, {from->handle}, to,
                                                            std::nullopt, semantics, {made.handle});
  ShouldRun("copy", made.lineage, status);
  if (semantics == core::CopySemantics::kDonateInput && !same) {
    made.deleted_marks = {std::make_shared<bool>(false)};
    from->MarkDeleted();
    if (shaken) Forget(from);
  }
  const ModelArrayRef added = Add(std::move(made));
  // A lost shard is replaced by a live replica's copy, or by the replica itself where that one lies
  // on the target's device: then both are deleted together. Shards that differ were never replicas,
  // which JAX cannot know either: whose value stands there now is nobody's promise.
  if (shaken && !same && !added->tiled && (!always || !added->uniform())) Forget(added);
}

void Client::Reshard() {
  const ModelArrayRef from = Pick();
  if (from == nullptr || (!from->tiled && !from->uniform())) return;
  std::vector<double> whole;
  if (from->tiled) {
    for (const auto& shard : from->values) whole.insert(whole.end(), shard.begin(), shard.end());
  } else {
    whole = from->values[0];
  }
  // Any list that cuts the array into pieces of the length that programs expect, or copies it.
  const std::vector<DeviceId>& to = AnyList();
  const bool tiled = to.size() > 1 && whole.size() == to.size() * kLength;
  if (!tiled && whole.size() != kLength) return;
  ModelArray made;
  made.handle = ArrayHandle(next_handle_++);
  made.devices = to;
  made.tiled = tiled;
  for (size_t i = 0; i < to.size(); ++i) {
    const auto begin = whole.begin() + static_cast<int64_t>(tiled ? i * kLength : 0);
    made.values.emplace_back(begin, begin + kLength);
  }
  made.lineage = NewLineage(to);
  made.lineage.Merge(from->lineage);
  made.deleted_marks = {std::make_shared<bool>(false)};
  // Which parts are shared is the runtime's choice: such an array is never deleted here.
  made.deleted_marks.insert(made.deleted_marks.end(), from->deleted_marks.begin(),
                            from->deleted_marks.end());
  const absl::Status status = world_.controller->ReshardArrays(
      session_, {from->handle}, {SpecOf(to, tiled)}, core::CopySemantics::kAlwaysCopy,
      {made.handle});
  world_.Note("client ", index_, ": reshard ", from->handle.value(), " -> ", made.handle.value());
  made.deleted_marks = {std::make_shared<bool>(false)};
  ShouldRun("reshard", made.lineage, status);
  Add(std::move(made));
}

void Client::Disassemble() {
  const ModelArrayRef from = Pick();
  if (from == nullptr || arrays_.size() + from->devices.size() > kMostArrays) return;
  std::vector<ArrayHandle> handles;
  for (size_t i = 0; i < from->devices.size(); ++i) handles.push_back(ArrayHandle(next_handle_++));
  world_.Note("client ", index_, ": disassemble ", from->handle.value(), " -> ",
              handles[0].value());
  const absl::Status status = world_.controller->Disassemble(session_, from->handle, handles,
                                                             core::CopySemantics::kReuseInput);
  ShouldRun("disassemble", from->lineage, status);
  for (size_t i = 0; i < handles.size(); ++i) {
    ModelArray part;
    part.handle = handles[i];
    part.devices = {from->devices[i]};
    part.values = {from->values[i]};
    part.lineage = from->lineage;
    part.deleted_marks = from->deleted_marks;
    Add(std::move(part));
  }
}

void Client::Read(const ModelArrayRef& array, Done then) {
  const int question = Ask(absl::StrCat("read ", array->handle.value()));
  world_.controller->CopyToHost(
      session_, array->handle, std::nullopt,
      [this, array, question, then = std::move(then),
       generation = generation_](absl::StatusOr<absl::Cord> bytes) {
        if (generation != generation_) return;
        Answered(question);
        if (ShouldRun("read", array->lineage, bytes.status())) {
          const std::vector<double> got = Unpack(*bytes);
          ++world_.values_checked;
          bool right = false;
          if (array->tiled) {
            std::vector<double> whole;
            for (const auto& s : array->values) whole.insert(whole.end(), s.begin(), s.end());
            right = got == whole;
          } else {
            right = std::find(array->values.begin(), array->values.end(), got) !=
                    array->values.end();
          }
          world_.Note("client ", index_, ": array ", array->handle.value(), " is ",
                      absl::StrJoin(got, " "));
          if (!right) {
            world_.Violation("client ", index_, " reads ", absl::StrJoin(got, " "), " from array ",
                             array->handle.value(), ", whose first shard is ",
                             absl::StrJoin(array->values[0], " "));
          }
          const std::vector<int> holders = WorkersOf(array->devices);
          if (holders.size() == 1) array->lineage = array->lineage.Confirmed(holders);
        }
        if (then) then();
      });
}

void Client::AwaitReady() {
  std::vector<ModelArrayRef> some;
  std::vector<ArrayHandle> handles;
  Lineage lineage;
  for (int n = 0; n < 3; ++n) {
    const ModelArrayRef array = Pick();
    if (array == nullptr) return;
    some.push_back(array);
    handles.push_back(array->handle);
    lineage.Merge(array->lineage);
  }
  const int question = Ask(absl::StrCat("await ready ", handles[0].value()));
  world_.controller->AwaitReady(
      session_, handles,
      [this, some, lineage, question, generation = generation_](absl::Status status) {
        if (generation != generation_) return;
        Answered(question);
        if (!ShouldRun("await ready", lineage, status)) return;
        for (const ModelArrayRef& array : some) {
          array->lineage = array->lineage.Confirmed(WorkersOf(array->devices));
        }
      });
}

void Client::Delete() {
  const ModelArrayRef array = Pick();
  if (array == nullptr) return;
  world_.Note("client ", index_, ": delete ", array->handle.value());
  const absl::Status status = world_.controller->Delete(session_, {array->handle});
  if (!status.ok()) world_.Violation("delete fails: ", status.ToString());
  // An array that was lost before it was made has nothing to delete.
  const bool unsure = array->lineage.Shaken(world_);
  array->MarkDeleted();
  if (unsure) {
    Forget(array);
    return;
  }
  const int question = Ask(absl::StrCat("read deleted ", array->handle.value()));
  world_.controller->CopyToHost(
      session_, array->handle, std::nullopt,
      [this, question, generation = generation_](absl::StatusOr<absl::Cord> bytes) {
        if (generation != generation_) return;
        Answered(question);
        if (bytes.status().code() != absl::StatusCode::kInvalidArgument) {
          world_.Violation("a deleted array can be read: ", bytes.status().ToString());
        }
      });
}

// As jax.clear_caches() does with what it has compiled.
void Client::LetGo() {
  for (auto it = executables_.begin(); it != executables_.end();) {
    const Executable executable = it->second;
    if (executable.asked || executable.handle.value() == 0) {
      ++it;
      continue;
    }
    world_.Note("client ", index_, ": lets go of ", it->first.first);
    const absl::Status status = world_.controller->DestructExecutable(session_, executable.handle);
    if (!status.ok()) world_.Violation("letting go of a program fails: ", status.ToString());
    it = executables_.erase(it);
  }
}

// The client's process dies; another one comes.
void Client::Leave() {
  REACHED("sim.client_left");
  world_.Note("client ", index_, ": leaves with ", questions_.size(), " questions open");
  world_.controller->CloseSession(session_);
  OpenSession();
}

// ---------------------------------------------------------------- the end

void Client::Finish() {
  if (finishing_) return;
  finishing_ = true;
  for (const ModelArrayRef& array : std::vector<ModelArrayRef>(arrays_)) {
    if (!array->deleted()) Read(array);
  }
  Prove();
}

// After all trouble: a program over all devices has to work.
void Client::Prove() {
  ModelProgram program;
  program.kind = ModelProgram::Kind::kSum;
  const std::vector<DeviceId>& all = world_.plan.lists[0];
  if (Compiled(program, all, [this] { Prove(); }) == nullptr) {
    // Another operation may have asked already: its answer does not come here.
    const auto& executable = executables_[{program.Text(kLength), all}];
    if (executable.asked && !proved_) {
      world_.scheduler.Schedule(absl::Milliseconds(10), [this] {
        if (!proved_) Prove();
      });
    }
    return;
  }
  if (std::exchange(proved_, true)) return;
  const ModelArrayRef input = UploadTo(all, false, 1);
  const ModelArrayRef output = Run(program, {input}, false)[0];
  Read(output, [this] { CloseWhenAnswered(); });
}

void Client::CloseWhenAnswered() {
  if (!questions_.empty()) {
    world_.scheduler.Schedule(absl::Milliseconds(50), [this] { CloseWhenAnswered(); });
    return;
  }
  world_.controller->CloseSession(session_);
  arrays_.clear();
  closed_ = true;
}

}  // namespace causeway::sim
