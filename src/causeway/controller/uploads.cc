// MakeArray: host bytes on their way to the workers that will hold them.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/check.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"
#include "causeway/model/host_copy.h"
#include "causeway/wire/text_array.h"

namespace causeway::controller {
namespace {

// One receiver of (a part of) a host buffer.
struct Target {
  std::shared_ptr<core::WorkerLink> link;
  TransferId transfer;
  std::optional<model::Box> box;  // absent: the whole buffer
};

// The buffer dense and row-major; checks its size.
absl::StatusOr<absl::Cord> Densify(const absl::Cord& bytes, const core::HostShards& source,
                                   int64_t element_bytes) {
  if (element_bytes < 0) {
    if (source.byte_strides.has_value()) {
      return absl::InvalidArgumentError("text travels row-major: send it without strides");
    }
    RETURN_IF_ERROR(wire::ParseText(std::string(bytes), source.shape).status());
    return bytes;
  }
  const int64_t dense_bytes = model::NumElements(source.shape) * element_bytes;
  const std::vector<int64_t> dense = model::DenseStrides(source.shape, element_bytes);
  if (!source.byte_strides.has_value() || *source.byte_strides == dense || dense_bytes == 0) {
    if (static_cast<int64_t>(bytes.size()) != dense_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("a host buffer of ", bytes.size(), " bytes for a shape [",
                       absl::StrJoin(source.shape, ","), "] that needs ", dense_bytes));
    }
    return bytes;
  }
  ASSIGN_OR_RETURN(int64_t spanned,
                   model::SpannedBytes(source.shape, *source.byte_strides, element_bytes));
  if (static_cast<int64_t>(bytes.size()) < spanned) {
    return absl::InvalidArgumentError(absl::StrCat("a host buffer of ", bytes.size(),
                                                   " bytes whose strides reach to byte ", spanned));
  }
  std::string flat;
  absl::CopyCordToString(bytes, &flat);
  std::string out(dense_bytes, '\0');
  model::CopyStrided(source.shape, element_bytes, flat.data(), *source.byte_strides, out.data(),
                     dense);
  return absl::Cord(std::move(out));
}

absl::StatusOr<absl::Cord> Extract(const std::string& flat, const model::Shape& shape,
                                   const model::Box& box, int64_t element_bytes) {
  if (element_bytes < 0) {
    ASSIGN_OR_RETURN(std::string cut, wire::CutText(flat, shape, box));
    return absl::Cord(std::move(cut));
  }
  const model::Shape dims = box.shape();
  std::string out(model::NumElements(dims) * element_bytes, '\0');
  const std::vector<int64_t> strides = model::DenseStrides(shape, element_bytes);
  model::CopyStrided(dims, element_bytes, flat.data() + model::ByteOffset(box.start, strides),
                     strides, out.data(), model::DenseStrides(dims, element_bytes));
  return absl::Cord(std::move(out));
}

// From here on a block goes to workers of this machine through shared memory.
constexpr int64_t kFileBytesMin = 128 << 10;

// Where a box lies in the dense buffer, in bytes, when it is one piece there.
std::optional<std::pair<int64_t, int64_t>> ContiguousBytes(const model::Shape& shape,
                                                           const model::Box& box,
                                                           int64_t element_bytes) {
  const model::Shape dims = box.shape();
  size_t inner = shape.size();  // from here on the box spans whole dimensions
  while (inner > 0 && dims[inner - 1] == shape[inner - 1]) --inner;
  for (size_t d = 0; d + 1 < inner; ++d) {
    if (dims[d] != 1) return std::nullopt;
  }
  return std::make_pair(
      model::ByteOffset(box.start, model::DenseStrides(shape, element_bytes)),
      model::NumElements(dims) * element_bytes);
}

// One host buffer and the places that want it; the two become known in either order.
// Thread safety: thread-safe.
class Upload {
 public:
  Upload(core::HostShards source, int64_t element_bytes)
      : source_(std::move(source)), element_bytes_(element_bytes) {}

  void BytesAre(absl::StatusOr<absl::Cord> bytes) {
    std::shared_ptr<const SharedFile> file;
    if (bytes.ok()) {
      file = source_.bytes->file();
      bytes = Densify(*bytes, source_, element_bytes_);
      // The file holds what the client sent, strides and all.
      const bool as_sent =
          bytes.ok() &&
          (!source_.byte_strides.has_value() ||
           *source_.byte_strides == model::DenseStrides(source_.shape, element_bytes_));
      if (!as_sent) file = nullptr;
    }
    std::vector<Target> targets;
    absl::AnyInvocable<void(const absl::Status&) &&> later;
    {
      absl::MutexLock lock(&mu_);
      bytes_ = bytes;
      file_ = file;
      if (!targets_.has_value()) return;
      targets.swap(*targets_);
      later = std::move(later_);
    }
    Deliver(bytes, file, targets);
    std::move(later)(bytes.status());
  }

  // The dense bytes, if they are here.
  std::optional<absl::StatusOr<absl::Cord>> Peek() {
    absl::MutexLock lock(&mu_);
    return bytes_;
  }

  // False: the bytes are not here; once they are, or will not come, `later` is called with what
  // became of them, without the controller's lock.
  bool SendTo(std::vector<Target> targets,
              absl::AnyInvocable<void(const absl::Status&) &&> later) {
    absl::StatusOr<absl::Cord> bytes;
    std::shared_ptr<const SharedFile> file;
    {
      absl::MutexLock lock(&mu_);
      if (!bytes_.has_value()) {
        targets_ = std::move(targets);
        later_ = std::move(later);
        return false;
      }
      bytes = *bytes_;
      file = file_;
    }
    Deliver(bytes, file, targets);
    return true;
  }

 private:
  // `file` holds the dense bytes too, if there is one.
  void Deliver(const absl::StatusOr<absl::Cord>& dense,
               const std::shared_ptr<const SharedFile>& file, const std::vector<Target>& targets) {
    std::optional<std::string> flat;
    for (const Target& target : targets) {
      if (!dense.ok()) {
        target.link->SendData(target.transfer, dense);
        continue;
      }
      std::optional<std::pair<int64_t, int64_t>> part;
      if (!target.box.has_value()) part.emplace(0, static_cast<int64_t>(dense->size()));
      // Texts have no fixed width: a box of them is cut out below.
      if (target.box.has_value() && element_bytes_ >= 0) {
        part = ContiguousBytes(source_.shape, *target.box, element_bytes_);
      }
      if (part.has_value()) {
        const auto [offset, size] = *part;
        if (file == nullptr || size < kFileBytesMin ||
            !target.link->SendFile(target.transfer, *file, offset, size)) {
          target.link->SendData(target.transfer, dense->Subcord(static_cast<size_t>(offset),
                                                                static_cast<size_t>(size)));
        }
        continue;
      }
      if (!flat.has_value()) {
        flat.emplace();
        absl::CopyCordToString(*dense, &*flat);
      }
      target.link->SendData(
          target.transfer, Extract(*flat, source_.shape, *target.box, element_bytes_));
    }
  }

  const core::HostShards source_;
  const int64_t element_bytes_;
  absl::Mutex mu_;
  std::optional<absl::StatusOr<absl::Cord>> bytes_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const SharedFile> file_ ABSL_GUARDED_BY(mu_);
  std::optional<std::vector<Target>> targets_ ABSL_GUARDED_BY(mu_);
  absl::AnyInvocable<void(const absl::Status&) &&> later_ ABSL_GUARDED_BY(mu_);
};

// Which source feeds which shard, and how.
struct Plan {
  std::vector<int> source_of;
  std::vector<model::Shape> dims;
  std::vector<std::optional<model::Box>> boxes;  // the part of its source, when not all of it
};

absl::StatusOr<Plan> PlanShards(const core::ArraySpec& spec,
                                const std::vector<core::HostShards>& sources) {
  const int n = spec.sharding->num_shards();
  Plan plan;
  plan.source_of.assign(n, -1);
  plan.dims.resize(n);
  plan.boxes.resize(n);
  for (size_t s = 0; s < sources.size(); ++s) {
    const core::HostShards& source = sources[s];
    std::vector<int> indices = source.shard_indices;
    if (source.holds_whole_array) {
      indices.clear();
      for (int i = 0; i < n; ++i) indices.push_back(i);
    }
    for (int i : indices) {
      if (i < 0 || i >= n || plan.source_of[i] >= 0) {
        return absl::InvalidArgumentError(absl::StrCat(
            "host buffer for shard ", i, " of an array of ", n,
            " shards: there is no such shard, or two buffers are given for it"));
      }
      plan.source_of[i] = static_cast<int>(s);
      if (source.holds_whole_array && !spec.sharding->fully_replicated()) {
        ASSIGN_OR_RETURN(plan.boxes[i], spec.sharding->ShardBox(spec.shape, i));
        plan.dims[i] = plan.boxes[i]->shape();
        continue;
      }
      ASSIGN_OR_RETURN(plan.dims[i], spec.sharding->ShardShape(spec.shape, i));
      if (plan.dims[i] != source.shape) {
        return absl::InvalidArgumentError(absl::StrCat(
            "shard ", i, " has shape [", absl::StrJoin(plan.dims[i], ","),
            "] but its host buffer has shape [", absl::StrJoin(source.shape, ","), "]"));
      }
    }
  }
  for (int i = 0; i < n; ++i) {
    if (plan.source_of[i] < 0) {
      return absl::InvalidArgumentError(absl::StrCat("no host buffer for shard ", i));
    }
  }
  return plan;
}

}  // namespace

absl::Status Controller::MakeArray(SessionId id, ArrayHandle result, core::ArraySpec spec,
                                   std::vector<core::HostShards> sources) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSessionFor(id, 1));
  auto make = [&]() -> absl::StatusOr<ArrayRef> {
    mu_.AssertHeld();
    const int64_t element_bytes = model::HostByteWidth(spec.dtype);
    auto array = std::make_shared<Array>();
    array->spec = spec;
    ASSIGN_OR_RETURN(array->list, Intern(spec.sharding->devices()));
    ASSIGN_OR_RETURN(Plan plan, PlanShards(spec, sources));
    std::vector<std::shared_ptr<Upload>> uploads;
    for (core::HostShards& source : sources) {
      uploads.push_back(std::make_shared<Upload>(source, element_bytes));
      source.bytes->OnReady([upload = uploads.back()](absl::StatusOr<absl::Cord> bytes) {
        upload->BytesAre(std::move(bytes));
      });
    }
    for (const DeviceList::Member& member : array->list->members) {
      if (!State(member.worker).alive) return LostError(member.worker);
    }
    BufferRef buffer = NewBuffer(array->list, spec.dtype, spec.sharding->memory_kind());
    for (const model::Shape& d : plan.dims) {
      buffer->bytes += model::NumElements(d) * std::max<int64_t>(0, element_bytes);
    }
    live_bytes_ += buffer->bytes;
    counters_.upload_bytes += buffer->bytes;
    array->whole = buffer;

    // Small bytes that are here already travel inside the command, all others beside it.
    std::vector<std::vector<Target>> targets(sources.size());
    absl::flat_hash_map<WorkerId, std::vector<wire::ShardBuild>> shards;
    absl::flat_hash_map<std::pair<int, WorkerId>, TransferId> shared;
    for (size_t i = 0; i < plan.dims.size(); ++i) {
      const int s = plan.source_of[i];
      const DeviceId device = array->list->devices[i];
      const WorkerId worker = topology_.WorkerOf(device);
      wire::ShardBuild shard{device, plan.dims[i], wire::FromTransfer{}};
      const auto here = uploads[s]->Peek();
      if (here.has_value() && !here->ok()) return here->status();
      if (here.has_value() && !plan.boxes[i].has_value() &&
          static_cast<int64_t>((*here)->size()) <= options_.inline_bytes_max) {
        shard.source = wire::FromInline{std::string(**here), std::nullopt};
      } else {
        // One transfer feeds all shards of a worker that want the same bytes.
        TransferId transfer;
        if (!plan.boxes[i].has_value()) transfer = shared[{s, worker}];
        if (transfer.value() == 0) {
          transfer = TransferId(next_id_++);
          if (!plan.boxes[i].has_value()) shared[{s, worker}] = transfer;
          targets[s].push_back({State(worker).link, transfer, plan.boxes[i]});
        }
        shard.source = wire::FromTransfer{transfer};
      }
      shards[worker].push_back(std::move(shard));
    }
    SendBuild(buffer, shards);
    MarkBuffer(*session, buffer);
    core::GateRef arrival = core::Gate::OfUpload(static_cast<int>(sources.size()) + 1);
    for (size_t s = 0; s < sources.size(); ++s) {
      const bool here =
          uploads[s]->SendTo(std::move(targets[s]), [this, arrival](const absl::Status& status) {
            Locked lock(this);
            if (status.ok()) {
              arrival->Release();
            } else {
              arrival->Fail(status);
            }
          });
      if (here) arrival->Release();
    }
    arrival->Release();
    if (!arrival->open()) buffer->gate = std::move(arrival);
    return array;
  };
  absl::StatusOr<ArrayRef> array = make();
  session->arrays[result] = array.ok() ? *array : ErrorArray(array.status());
  // A lost slice is not the caller's mistake: it shows when the value is read.
  if (array.status().code() == absl::StatusCode::kDataLoss) return absl::OkStatus();
  return array.status();
}

}  // namespace causeway::controller
