// A Device that answers for host arrays itself and passes everything else on.
#include "causeway/device/host_arrays.h"

#include <typeinfo>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"
#include "causeway/model/dtype.h"

namespace causeway::device {
namespace {

class HostArray final : public Array {
 public:
  HostArray(std::vector<int32_t> devices, std::vector<HostShard> shards)
      : devices_(std::move(devices)), shards_(std::move(shards)) {}
  const std::vector<int32_t>& devices() const override { return devices_; }
  int64_t bytes() const override {
    int64_t sum = 0;
    for (const HostShard& shard : shards_) sum += static_cast<int64_t>(shard.bytes->size());
    return sum;
  }
  absl::StatusOr<HostShard> ShardOn(int32_t device) const {
    for (size_t i = 0; i < devices_.size(); ++i) {
      if (devices_[i] == device) return shards_[i];
    }
    return absl::FailedPreconditionError(
        absl::StrCat("the buffer has no shard on device ", device, " of this worker"));
  }

 private:
  const std::vector<int32_t> devices_;
  const std::vector<HostShard> shards_;
};

class ReadyCopy final : public HostCopy {
 public:
  explicit ReadyCopy(HostShard shard) : shard_(std::move(shard)) {}
  absl::StatusOr<HostShard> Await() override { return std::move(shard_); }

 private:
  HostShard shard_;
};

const HostArray* AsHostArray(const Array& array) {
  return IsHostArray(array) ? static_cast<const HostArray*>(&array) : nullptr;
}

class DeviceWithHostArrays final : public Device {
 public:
  explicit DeviceWithHostArrays(std::unique_ptr<Device> device) : device_(std::move(device)) {}

  const DeviceInfo& info() const override { return device_->info(); }
  absl::Status OpenEpoch(const EpochSpec& spec) override { return device_->OpenEpoch(spec); }
  int AbortCollectives() override { return device_->AbortCollectives(); }
  absl::Status OverdueFailure() override { return device_->OverdueFailure(); }
  absl::StatusOr<Compiled> Compile(const CompileRequest& request) override {
    return device_->Compile(request);
  }
  absl::StatusOr<std::shared_ptr<Program>> Load(const LoadRequest& request) override {
    return device_->Load(request);
  }
  absl::StatusOr<Launched> Launch(Program& program, absl::Span<const ArrayRef> args,
                                  absl::Span<const int32_t> protect, uint64_t place) override {
    for (size_t i = 0; i < args.size(); ++i) {
      if (IsHostArray(*args[i])) {
        return absl::InvalidArgumentError(
            absl::StrCat("argument ", i, " is an array of text, which compiled programs do not "
                         "take; use it in colocated Python"));
      }
    }
    return device_->Launch(program, args, protect, place);
  }

  absl::StatusOr<ArrayRef> Build(const BuildRequest& request) override {
    const bool text = request.dtype == static_cast<int32_t>(model::DType::kString);
    if (!text) return device_->Build(request);
    std::vector<int32_t> devices;
    std::vector<HostShard> shards;
    for (const ShardSource& shard : request.shards) {
      devices.push_back(shard.device);
      if (shard.kind == ShardSource::Kind::kHost) {
        shards.push_back({shard.bytes, shard.dims, 0, request.dtype});
        continue;
      }
      const HostArray* source = AsHostArray(*shard.source);
      if (source == nullptr) {
        return absl::InvalidArgumentError("an array of text cannot be made of other arrays");
      }
      ASSIGN_OR_RETURN(HostShard found, source->ShardOn(shard.source_device));
      shards.push_back(std::move(found));
    }
    return ArrayRef(std::make_shared<HostArray>(std::move(devices), std::move(shards)));
  }

  absl::StatusOr<std::unique_ptr<HostCopy>> StartHostCopy(const ArrayRef& array,
                                                          int32_t device) override {
    const HostArray* host = AsHostArray(*array);
    if (host == nullptr) return device_->StartHostCopy(array, device);
    ASSIGN_OR_RETURN(HostShard shard, host->ShardOn(device));
    return std::unique_ptr<HostCopy>(std::make_unique<ReadyCopy>(std::move(shard)));
  }

  absl::Status AwaitReady(absl::Span<const ArrayRef> arrays) override {
    std::vector<ArrayRef> others;
    for (const ArrayRef& array : arrays) {
      if (!IsHostArray(*array)) others.push_back(array);
    }
    return others.empty() ? absl::OkStatus() : device_->AwaitReady(others);
  }

  absl::StatusOr<ArrayRef> Adopt(const ArrayRef& array) override {
    if (IsHostArray(*array)) return array;
    return device_->Adopt(array);
  }

  absl::StatusOr<Introspection> Introspect(const ProgramSource& source,
                                           const std::string& what) override {
    return device_->Introspect(source, what);
  }

  absl::StatusOr<std::shared_ptr<HostProgram>> LoadHostProgram(
      const HostProgramSpec& spec) override {
    return device_->LoadHostProgram(spec);
  }
  void Idle() override { device_->Idle(); }
  void ForgetOldEpochs() override { device_->ForgetOldEpochs(); }

 private:
  const std::unique_ptr<Device> device_;
};

}  // namespace

std::unique_ptr<Device> WithHostArrays(std::unique_ptr<Device> device) {
  return std::make_unique<DeviceWithHostArrays>(std::move(device));
}

bool IsHostArray(const Array& array) {
  // Asked of every argument: the class is this file's alone, and so is its type_info.
  return &typeid(array) == &typeid(HostArray);
}

}  // namespace causeway::device
