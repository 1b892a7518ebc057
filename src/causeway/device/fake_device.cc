// The stream, the arithmetic and the arrays of the fake device.
#include "causeway/device/fake_device.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "causeway/base/status_macros.h"

namespace causeway::device {
namespace {

int64_t WidthOf(int32_t dtype) { return dtype == 12 ? 8 : dtype == 11 || dtype == 4 ? 4 : 0; }

// What does not fit an integer becomes the nearest that does; what is no number becomes 0.
int32_t ToInt32(double value) {
  if (!(value == value)) return 0;
  constexpr double kLeast = std::numeric_limits<int32_t>::min();
  constexpr double kMost = std::numeric_limits<int32_t>::max();
  return static_cast<int32_t>(std::clamp(value, kLeast, kMost));
}

void Encode(int32_t dtype, double value, char* out) {
  const auto f = static_cast<float>(value);
  const int32_t i = ToInt32(value);
  const void* from = dtype == 12 ? static_cast<const void*>(&value)
                     : dtype == 11 ? static_cast<const void*>(&f)
                                   : static_cast<const void*>(&i);
  std::memcpy(out, from, static_cast<size_t>(WidthOf(dtype)));
}

double Decode(int32_t dtype, const char* in) {
  double d;
  float f;
  int32_t i;
  if (dtype == 12) return std::memcpy(&d, in, 8), d;
  if (dtype == 11) return std::memcpy(&f, in, 4), f;
  return std::memcpy(&i, in, 4), i;
}

class FakeArray final : public Array {
 public:
  FakeArray(std::vector<int32_t> devices, int32_t dtype, uint64_t epoch,
            std::vector<FakeCellRef> cells)
      : dtype(dtype), epoch(epoch), cells(std::move(cells)), devices_(std::move(devices)) {}
  const std::vector<int32_t>& devices() const override { return devices_; }
  int64_t bytes() const override {
    int64_t n = 0;
    for (const auto& cell : cells) n += static_cast<int64_t>(cell->values.size());
    return n * WidthOf(dtype);
  }
  const int32_t dtype;
  const uint64_t epoch;
  const std::vector<FakeCellRef> cells;
  std::shared_ptr<bool> deleted = std::make_shared<bool>(false);

 private:
  const std::vector<int32_t> devices_;
};

struct LoadedFake final : public Program {
  FakeProgram program;
  std::vector<int32_t> local;
  std::vector<int> local_ids;
  std::set<int> all_ids;
  uint64_t epoch = 0;
};

struct Outcome {
  bool done = false;
  absl::Status status;
};

class FakeCompletion final : public Completion {
 public:
  FakeCompletion(FakeFabric* fabric, std::shared_ptr<Outcome> outcome)
      : fabric_(fabric), outcome_(std::move(outcome)) {}
  absl::Status Await() override {
    absl::MutexLock lock(fabric_->mu());
    fabric_->mu()->Await(absl::Condition(&outcome_->done));
    return outcome_->status;
  }
  bool ready() const {
    absl::MutexLock lock(fabric_->mu());
    return outcome_->done;
  }

 private:
  FakeFabric* const fabric_;
  const std::shared_ptr<Outcome> outcome_;
};

class FakeHostCopy final : public HostCopy {
 public:
  FakeHostCopy(FakeFabric* fabric, FakeCellRef cell, int32_t dtype)
      : fabric_(fabric), cell_(std::move(cell)), dtype_(dtype) {}
  absl::StatusOr<HostShard> Await() override {
    absl::MutexLock lock(fabric_->mu());
    fabric_->mu()->Await(absl::Condition(&cell_->done));
    if (!cell_->status.ok()) return cell_->status;
    const int64_t width = WidthOf(dtype_);
    auto block = HostBlock::Allocate(cell_->values.size() * static_cast<size_t>(width));
    for (size_t i = 0; i < cell_->values.size(); ++i) {
      Encode(dtype_, cell_->values[i], block->mutable_data() + static_cast<int64_t>(i) * width);
    }
    return HostShard{std::move(block), cell_->dims, width};
  }
  bool ready() const {
    absl::MutexLock lock(fabric_->mu());
    return cell_->done;
  }

 private:
  FakeFabric* const fabric_;
  const FakeCellRef cell_;
  const int32_t dtype_;
};

// Nodes come from the network: far ones wrap around.
int GlobalId(int node, int ordinal) {
  return static_cast<int>(static_cast<uint32_t>(node) * 1024u + static_cast<uint32_t>(ordinal));
}

absl::Status Deleted() { return absl::InvalidArgumentError("Array has been deleted."); }

int IndexOf(const std::vector<int32_t>& devices, int32_t device) {
  const auto it = std::find(devices.begin(), devices.end(), device);
  return it == devices.end() ? -1 : static_cast<int>(it - devices.begin());
}

}  // namespace

bool FakeCompletionIsReady(const Completion& completion) {
  return static_cast<const FakeCompletion&>(completion).ready();
}

bool FakeCopyIsReady(const HostCopy& copy) {
  return static_cast<const FakeHostCopy&>(copy).ready();
}

bool FakeArrayIsReady(const Array& array) {
  const auto& cells = static_cast<const FakeArray&>(array).cells;
  return std::all_of(cells.begin(), cells.end(), [](const FakeCellRef& c) { return c->done; });
}

struct FakeDevice::Computation {
  FakeProgram program;
  std::vector<int> ids;         // local, by shard
  std::set<int> all_ids;
  std::vector<std::vector<FakeCellRef>> values;  // by value, then shard
  std::vector<std::vector<FakeCellRef>> outputs;
  size_t at = 0;
  int messages_out = 0;
  bool posted = false;
  bool paced = false, started = false;
  absl::Status status;
  absl::Status failed_at_end;  // the outputs do not know
  std::shared_ptr<Outcome> outcome = std::make_shared<Outcome>();
};

FakeDevice::FakeDevice(int num_devices, FakeFabric* fabric, FakeDeviceHooks hooks)
    : fabric_(fabric), hooks_(std::move(hooks)) {
  info_ = {.platform = "cpu",
           .device_kind = "fake",
           .memory_kinds = {"device"},
           .runtime_version = "fake",
           .num_devices = num_devices};
}

FakeDevice::~FakeDevice() {
  {
    absl::MutexLock lock(fabric_->mu());
    hooks_ = {};
  }
  AbortCollectives();
}

void FakeDevice::Vanish() {
  absl::MutexLock lock(fabric_->mu());
  hooks_ = {};
  running_ = true;  // for good
  fabric_->Vanish(own_ids_);
  own_ids_.clear();
}

absl::Status FakeDevice::OpenEpoch(const EpochSpec& spec) {
  absl::MutexLock lock(fabric_->mu());
  spec_ = spec;
  own_ids_.clear();
  for (int k = 0; k < info_.num_devices; ++k) own_ids_.insert(GlobalId(spec.node, k));
  return absl::OkStatus();
}

int FakeDevice::AbortCollectives() {
  absl::MutexLock lock(fabric_->mu());
  return fabric_->Cut(own_ids_);
}

absl::Status FakeDevice::OverdueFailure() {
  absl::MutexLock lock(fabric_->mu());
  return hooks_.overdue ? hooks_.overdue() : absl::OkStatus();
}

absl::StatusOr<Compiled> FakeDevice::Compile(const CompileRequest& request) {
  {
    absl::MutexLock lock(fabric_->mu());
    if (own_ids_.empty()) return absl::FailedPreconditionError("no epoch is open");
  }
  ASSIGN_OR_RETURN(FakeProgram program, ParseFakeProgram(request.code));
  Compiled compiled;
  compiled.serialized = request.code;
  compiled.name = program.name;
  compiled.fingerprint = request.code;
  compiled.outputs = program.output_types;
  compiled.output_memory_kinds.assign(program.output_types.size(), "device");
  compiled.donated_inputs = program.donated;
  return compiled;
}

absl::StatusOr<std::shared_ptr<Program>> FakeDevice::Load(const LoadRequest& request) {
  auto loaded = std::make_shared<LoadedFake>();
  const std::string& text =
      request.source->serialized.empty() ? request.source->code : request.source->serialized;
  ASSIGN_OR_RETURN(loaded->program, ParseFakeProgram(text));
  for (const int32_t device : request.devices) {
    const int worker = device / spec_.devices_per_host;
    const bool own = worker == spec_.worker;
    const int node = own ? spec_.node
                     : worker < static_cast<int>(request.nodes.size()) ? request.nodes[worker]
                                                                       : 0;
    if (node == 0) {
      return absl::DataLossError(absl::StrCat("worker ", worker, " is not in this epoch"));
    }
    const int id = GlobalId(node, device % spec_.devices_per_host);
    loaded->all_ids.insert(id);
    if (own) {
      loaded->local.push_back(device);
      loaded->local_ids.push_back(id);
    }
  }
  loaded->epoch = spec_.epoch;
  return std::shared_ptr<Program>(std::move(loaded));
}

absl::StatusOr<Launched> FakeDevice::Launch(Program& program, absl::Span<const ArrayRef> args,
                                            absl::Span<const int32_t> protect, uint64_t) {
  auto& loaded = static_cast<LoadedFake&>(program);
  if (loaded.epoch != spec_.epoch) {
    return absl::FailedPreconditionError("the program was loaded in another epoch");
  }
  if (static_cast<int>(args.size()) != loaded.program.num_inputs) {
    return absl::InvalidArgumentError(absl::StrCat("the program takes ",
                                                   loaded.program.num_inputs, " inputs, not ",
                                                   args.size()));
  }
  absl::MutexLock lock(fabric_->mu());
  auto c = std::make_shared<Computation>();
  c->program = loaded.program;
  c->ids = loaded.local_ids;
  c->all_ids = loaded.all_ids;
  for (const ArrayRef& arg : args) {
    const auto& fake = static_cast<const FakeArray&>(*arg);
    if (*fake.deleted) return Deleted();
    if (fake.epoch != spec_.epoch) {
      return absl::FailedPreconditionError("an argument belongs to another epoch");
    }
    std::vector<FakeCellRef> cells;
    for (const int32_t device : loaded.local) {
      const int index = IndexOf(fake.devices(), device);
      if (index < 0) return absl::FailedPreconditionError("an argument has no shard there");
      cells.push_back(fake.cells[static_cast<size_t>(index)]);
    }
    c->values.push_back(std::move(cells));
  }
  for (const int32_t i : loaded.program.donated) {
    if (std::find(protect.begin(), protect.end(), i) != protect.end()) continue;
    *static_cast<const FakeArray&>(*args[static_cast<size_t>(i)]).deleted = true;
  }
  Launched launched;
  for (const ArrayType& type : loaded.program.output_types) {
    std::vector<FakeCellRef> cells;
    for (size_t s = 0; s < loaded.local.size(); ++s) cells.push_back(std::make_shared<FakeCell>());
    launched.outputs.push_back(
        std::make_shared<FakeArray>(loaded.local, type.dtype, spec_.epoch, cells));
    c->outputs.push_back(std::move(cells));
  }
  launched.completion = std::make_unique<FakeCompletion>(fabric_, c->outcome);
  launched.held = std::any_of(
      c->program.body.begin(), c->program.body.end(),
      [](const FakeInstruction& i) { return i.op == FakeInstruction::Op::kFailAtEnd; });
  const std::shared_ptr<Outcome> outcome = c->outcome;
  stream_.push_back(std::move(c));
  Run();
  if (hooks_.prompt && outcome->done && outcome->status.ok() && !launched.held) {
    launched.completion = nullptr;
  }
  return launched;
}

void FakeDevice::Run() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (running_) return;
  running_ = true;
  while (!stream_.empty()) {
    // A local reference: Step may be what ends it.
    const std::shared_ptr<Computation> front = stream_.front();
    if (hooks_.pace && !front->started) {
      if (!forced_) {
        if (front->paced) break;
        front->paced = true;
        hooks_.pace([this, weak = std::weak_ptr<Computation>(front)] {
          absl::MutexLock lock(fabric_->mu());
          const auto computation = weak.lock();
          if (computation == nullptr) return;
          computation->started = true;
          Run();
        });
        break;
      }
      front->started = true;
    }
    if (!Step(front)) break;
    stream_.pop_front();
    if (hooks_.progressed) hooks_.progressed();
  }
  running_ = false;
}

// Whoever waits for a value gives its stream all the time it needs.
void FakeDevice::Force() {
  absl::MutexLock lock(fabric_->mu());
  if (!hooks_.pace) return;
  forced_ = true;
  Run();
  forced_ = false;
}

// True when the computation has ended.
bool FakeDevice::Step(const std::shared_ptr<Computation>& c) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  using Op = FakeInstruction::Op;
  if (c->at == 0 && !c->posted) {
    // As XLA does: an input in error skips the whole computation, its collectives included.
    for (const auto& shards : c->values) {
      for (const FakeCellRef& cell : shards) c->status.Update(cell->status);
    }
    if (c->status.ok() && hooks_.trouble) c->status = hooks_.trouble();
  }
  while (c->status.ok() && c->at < c->program.body.size()) {
    const FakeInstruction& in = c->program.body[c->at];
    if (in.op == Op::kPsum) {
      if (!c->posted) {
        c->posted = true;
        c->values.emplace_back();
        c->messages_out = static_cast<int>(c->ids.size());
        for (size_t s = 0; s < c->ids.size(); ++s) {
          auto cell = std::make_shared<FakeCell>(*c->values[in.a][s]);
          c->values.back().push_back(cell);
          fabric_->Post(c->all_ids, c->ids[s], c->values[in.a][s]->values,
                        [this, c, cell](absl::StatusOr<FakeFabric::Message> sum) {
                          c->status.Update(sum.status());
                          if (sum.ok()) cell->values = *std::move(sum);
                          --c->messages_out;
                          Run();
                        });
        }
      }
      if (c->messages_out > 0) return false;
      c->posted = false;
      ++c->at;
      continue;
    }
    if (in.op == Op::kFail) {
      c->status = in.error;
      break;
    }
    if (in.op == Op::kFailAtEnd) c->failed_at_end = in.error;
    std::vector<FakeCellRef> result;
    for (size_t s = 0; s < c->ids.size(); ++s) {
      auto cell = std::make_shared<FakeCell>();
      if (in.op == Op::kConst) {
        cell->dims = {in.count};
        cell->values.assign(static_cast<size_t>(in.count), in.constant);
      } else {
        *cell = *c->values[in.a][s];
      }
      if (in.op == Op::kAdd || in.op == Op::kMul) {
        const FakeCell& other = *c->values[in.b][s];
        for (size_t i = 0; i < cell->values.size() && i < other.values.size(); ++i) {
          cell->values[i] = in.op == Op::kAdd ? cell->values[i] + other.values[i]
                                              : cell->values[i] * other.values[i];
        }
      }
      if (in.op == Op::kAddConst) for (double& v : cell->values) v += in.constant;
      if (in.op == Op::kMulConst) for (double& v : cell->values) v *= in.constant;
      if (in.op == Op::kSum) {
        double sum = 0;
        for (const double v : cell->values) sum += v;
        cell->values = {sum};
        cell->dims.clear();
      }
      result.push_back(std::move(cell));
    }
    c->values.push_back(std::move(result));
    ++c->at;
  }
  if (c->messages_out > 0) return false;  // callbacks still refer to this computation
  for (size_t o = 0; o < c->outputs.size(); ++o) {
    for (size_t s = 0; s < c->ids.size(); ++s) {
      FakeCell& to = *c->outputs[o][s];
      if (c->status.ok()) {
        const FakeCell& from = *c->values[static_cast<size_t>(c->program.output_values[o])][s];
        to.dims = from.dims;
        to.values = from.values;
      }
      to.status = c->status;
      to.done = true;
    }
  }
  c->outcome->status = c->status.ok() ? c->failed_at_end : c->status;
  c->outcome->done = true;
  return true;
}

absl::StatusOr<ArrayRef> FakeDevice::Build(const BuildRequest& request) {
  const int64_t width = WidthOf(request.dtype);
  if (width == 0) {
    return absl::UnimplementedError("fake devices hold f32, f64 and s32 only");
  }
  absl::MutexLock lock(fabric_->mu());
  std::vector<int32_t> devices;
  std::vector<FakeCellRef> cells;
  for (const ShardSource& shard : request.shards) {
    devices.push_back(shard.device);
    if (shard.kind != ShardSource::Kind::kHost) {
      const auto& from = static_cast<const FakeArray&>(*shard.source);
      const int index = IndexOf(from.devices(), shard.source_device);
      if (*from.deleted) return Deleted();
      if (index < 0) return absl::FailedPreconditionError("no such shard to copy");
      cells.push_back(from.cells[static_cast<size_t>(index)]);
      continue;
    }
    auto cell = std::make_shared<FakeCell>();
    cell->done = true;
    cell->dims = shard.dims;
    std::vector<int64_t> strides = shard.byte_strides;
    if (strides.empty()) {
      strides.assign(shard.dims.size(), width);
      for (size_t i = shard.dims.size(); i-- > 1;) strides[i - 1] = strides[i] * shard.dims[i];
    }
    int64_t count = 1;
    for (const int64_t d : shard.dims) count *= d;
    for (int64_t n = 0; n < count; ++n) {
      int64_t rest = n, offset = 0;
      for (size_t i = shard.dims.size(); i-- > 0; rest /= shard.dims[i]) {
        offset += rest % shard.dims[i] * strides[i];
      }
      cell->values.push_back(Decode(request.dtype, shard.bytes->data() + offset));
    }
    cells.push_back(std::move(cell));
  }
  return ArrayRef(std::make_shared<FakeArray>(std::move(devices), request.dtype, spec_.epoch,
                                              std::move(cells)));
}

absl::StatusOr<std::unique_ptr<HostCopy>> FakeDevice::StartHostCopy(const ArrayRef& array,
                                                                    int32_t device) {
  const auto& fake = static_cast<const FakeArray&>(*array);
  absl::MutexLock lock(fabric_->mu());
  if (*fake.deleted) return Deleted();
  const int index = IndexOf(fake.devices(), device);
  if (index < 0) {
    return absl::FailedPreconditionError(absl::StrCat("no shard on device ", device));
  }
  return std::unique_ptr<HostCopy>(std::make_unique<FakeHostCopy>(
      fabric_, fake.cells[static_cast<size_t>(index)], fake.dtype));
}

absl::Status FakeDevice::AwaitReady(absl::Span<const ArrayRef> arrays) {
  absl::Status status;
  absl::MutexLock lock(fabric_->mu());
  for (const ArrayRef& array : arrays) {
    for (const FakeCellRef& cell : static_cast<const FakeArray&>(*array).cells) {
      fabric_->mu()->Await(absl::Condition(&cell->done));
      status.Update(cell->status);
    }
  }
  return status;
}

absl::StatusOr<ArrayRef> FakeDevice::Adopt(const ArrayRef& array) {
  const auto& fake = static_cast<const FakeArray&>(*array);
  Force();
  if (hooks_.pace && !FakeArrayIsReady(*array)) {
    return absl::InternalError("the value to adopt waits for a collective that will never end");
  }
  RETURN_IF_ERROR(AwaitReady({array}));
  absl::MutexLock lock(fabric_->mu());
  if (*fake.deleted) return Deleted();
  return ArrayRef(
      std::make_shared<FakeArray>(fake.devices(), fake.dtype, spec_.epoch, fake.cells));
}

namespace {

class FakeHostProgram final : public HostProgram {
 public:
  explicit FakeHostProgram(std::string code) : code_(std::move(code)) {}
  absl::StatusOr<std::vector<HostValue>> Run(const std::vector<HostValue>& args) override {
    absl::string_view rest = code_;
    if (absl::ConsumePrefix(&rest, "fake host fail ")) return absl::InvalidArgumentError(rest);
    float more = 0;
    if (!absl::ConsumePrefix(&rest, "fake host add ") || !absl::SimpleAtof(rest, &more)) {
      return absl::InvalidArgumentError(absl::StrCat("no fake host program: ", code_));
    }
    std::vector<HostValue> results = args;
    for (HostValue& value : results) {
      for (HostPart& part : value) {
        std::string bytes(part.shard.bytes->data(), part.shard.bytes->size());
        for (size_t at = 0; at + 4 <= bytes.size(); at += 4) {
          Encode(11, Decode(11, bytes.data() + at) + more, bytes.data() + at);
        }
        part.shard.bytes = HostBlock::FromString(std::move(bytes));
      }
    }
    return results;
  }

 private:
  const std::string code_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<HostProgram>> FakeDevice::LoadHostProgram(
    const HostProgramSpec& spec) {
  if (!absl::StartsWith(spec.source->code, "fake host ")) {
    return absl::InvalidArgumentError(absl::StrCat("no fake host program: ", spec.source->code));
  }
  return std::shared_ptr<HostProgram>(std::make_shared<FakeHostProgram>(spec.source->code));
}

absl::StatusOr<Introspection> FakeDevice::Introspect(const ProgramSource& source,
                                                     const std::string& what) {
  Introspection found;
  if (what == "text") {
    found.text = source.code;
  } else if (what == "cost") {
    found.numbers["flops"] = static_cast<double>(source.code.size());
  } else {
    return absl::InvalidArgumentError(absl::StrCat("ask for 'text' or 'cost', not '", what, "'"));
  }
  return found;
}

}  // namespace causeway::device
