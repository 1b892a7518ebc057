// Protobuf messages of the control stream into plain values and back.
#include "causeway/worker/command_codec.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "control.pb.h"

namespace causeway::worker {
namespace {

template <class T, class R>
std::vector<T> Values(const R& repeated) {
  return std::vector<T>(repeated.begin(), repeated.end());
}

template <class Id, class R>
std::vector<Id> Ids(const R& repeated) {
  std::vector<Id> out;
  out.reserve(repeated.size());
  for (const auto value : repeated) out.push_back(Id(value));
  return out;
}

absl::Status FromProto(const control::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.code()), status.message());
}

// Why something failed: an error even where the sender forgot to say which.
absl::Status CauseFromProto(const control::Status& status) {
  if (status.code() != 0) return FromProto(status);
  return absl::UnknownError(absl::StrCat("no cause was given: ", status.message()));
}

void ToProto(const absl::Status& status, control::Status* out) {
  out->set_code(static_cast<int>(status.code()));
  out->set_message(std::string(status.message()));
}

NodeMap FromProto(const control::NodeMap& map) {
  return {Values<int32_t>(map.node()), Values<std::string>(map.data_address()),
          Values<std::string>(map.memory())};
}

ShardBuild FromProto(control::ShardBuild* shard) {
  ShardBuild out;
  out.device = shard->device();
  out.dims = Values<int64_t>(shard->dims());
  switch (shard->source_case()) {
    case control::ShardBuild::kAlias:
    case control::ShardBuild::kCopy: {
      const bool alias = shard->source_case() == control::ShardBuild::kAlias;
      const control::Ref& ref = alias ? shard->alias() : shard->copy();
      out.kind = alias ? ShardBuild::Kind::kAlias : ShardBuild::Kind::kCopy;
      out.buffer = BufferId(ref.buffer());
      out.source_device = ref.device();
      break;
    }
    case control::ShardBuild::kTransfer:
      out.kind = ShardBuild::Kind::kTransfer;
      out.transfer = TransferId(shard->transfer());
      break;
    case control::ShardBuild::kPieces:
      out.kind = ShardBuild::Kind::kPieces;
      for (const control::Piece& piece : shard->pieces().pieces()) {
        Piece p;
        p.start = Values<int64_t>(piece.start());
        p.dims = Values<int64_t>(piece.dims());
        if (piece.has_local()) {
          p.buffer = BufferId(piece.local().buffer());
          p.device = piece.local().device();
          p.source_start = Values<int64_t>(piece.local().start());
        } else {
          p.transfer = TransferId(piece.transfer());
        }
        out.pieces.push_back(std::move(p));
      }
      break;
    default:
      out.kind = ShardBuild::Kind::kInline;
      if (shard->inline_bytes().has_strides()) {
        out.byte_strides = Values<int64_t>(shard->inline_bytes().byte_strides());
      }
      out.bytes = device::HostBlock::FromString(
          std::move(*shard->mutable_inline_bytes()->mutable_data()));
  }
  return out;
}

Build FromProto(control::Build* build) {
  Build out;
  out.buffer = BufferId(build->buffer());
  out.dtype = build->dtype();
  out.memory_kind = build->memory_kind();
  for (control::ShardBuild& shard : *build->mutable_shards()) {
    out.shards.push_back(FromProto(&shard));
  }
  return out;
}

Bind FromProto(const control::Bind& bind) {
  Bind out{.binding = BindingId(bind.binding()),
           .program = ProgramId(bind.program()),
           .devices = Values<int32_t>(bind.devices()),
           .output_memory_kinds = Values<std::string>(bind.output_memory_kinds()),
           .output_dtypes = Values<int32_t>(bind.output_dtypes()),
           .host_callbacks = bind.host_callbacks(),
           .host_outputs = {},
           .session = SessionId(bind.session())};
  for (const control::HostOutput& output : bind.host_outputs()) {
    Bind::Output& to = out.host_outputs.emplace_back();
    to.dtype = output.dtype();
    to.memory_kind = output.memory_kind();
    for (const control::HostShardSpec& shard : output.shards()) {
      to.shards.push_back({shard.device(), Values<int64_t>(shard.dims())});
    }
  }
  return out;
}

Launch FromProto(const control::Launch& launch) {
  Launch out;
  out.binding = BindingId(launch.binding());
  out.epoch = EpochId(launch.epoch());
  out.seq = LaunchSeq(launch.seq());
  out.args = Ids<BufferId>(launch.args());
  out.outputs = Ids<BufferId>(launch.outputs());
  out.protect = Values<int32_t>(launch.protect());
  out.request = RequestId(launch.request());
  out.stream = launch.stream();
  return out;
}

LoadProgram FromProto(control::LoadProgram* load) {
  LoadProgram out;
  out.program = ProgramId(load->program());
  out.source.serialized = std::move(*load->mutable_serialized());
  out.source.code = std::move(*load->mutable_code());
  out.source.options = std::move(*load->mutable_options());
  out.source.num_devices = load->num_devices();
  out.source.num_outputs = load->num_outputs();
  out.source.kind = load->kind();
  out.source.name = load->name();
  return out;
}

Welcome FromProto(const control::Welcome& w) {
  return {.worker = WorkerId(w.worker()),
          .incarnation = Incarnation(w.incarnation()),
          .devices_per_host = w.devices_per_host(),
          .num_workers = w.num_workers(),
          .coordinator = w.coordinator(),
          .num_nodes = w.num_nodes(),
          .platform = w.platform(),
          .max_inflight_launches = w.max_inflight_launches(),
          .heartbeat_ms = w.heartbeat_ms(),
          .token = w.token(),
          .push_token = w.push_token(),
          .callbacks = w.callbacks(),
          .checksums = w.checksums(),
          .sentinel = w.sentinel()};
}

void ToProto(const std::vector<std::vector<int64_t>>& layouts,
             google::protobuf::RepeatedPtrField<control::LayoutOrder>* out) {
  for (const auto& layout : layouts) {
    auto* order = out->Add();
    for (const int64_t dim : layout) order->add_minor_to_major(dim);
  }
}

void ToProto(const std::vector<device::ArrayType>& types,
             google::protobuf::RepeatedPtrField<control::ArrayType>* out) {
  for (const device::ArrayType& type : types) {
    auto* to = out->Add();
    to->set_dtype(type.dtype);
    for (const int64_t dim : type.dims) to->add_dims(dim);
  }
}

void ToProto(const device::Compiled& c, control::CompileResult* out) {
  out->set_serialized(c.serialized);
  out->set_name(c.name);
  out->set_fingerprint(c.fingerprint);
  ToProto(c.outputs, out->mutable_outputs());
  out->set_has_parameters(c.parameters.has_value());
  if (c.parameters.has_value()) ToProto(*c.parameters, out->mutable_parameters());
  out->set_has_parameter_shardings(c.parameter_shardings.has_value());
  for (const auto& s : c.parameter_shardings.value_or(std::vector<std::string>())) {
    out->add_parameter_shardings(s);
  }
  out->set_has_output_shardings(c.output_shardings.has_value());
  for (const auto& s : c.output_shardings.value_or(std::vector<std::string>())) {
    out->add_output_shardings(s);
  }
  ToProto(c.parameter_layouts_status, out->mutable_parameter_layouts_status());
  ToProto(c.parameter_layouts, out->mutable_parameter_layouts());
  ToProto(c.output_layouts_status, out->mutable_output_layouts_status());
  ToProto(c.output_layouts, out->mutable_output_layouts());
  for (const auto& kind : c.output_memory_kinds) out->add_output_memory_kinds(kind);
  for (const int32_t i : c.donated_inputs) out->add_donated_inputs(i);
  ToProto(c.memory_stats_status, out->mutable_memory_stats_status());
  out->mutable_memory_stats()->insert(c.memory_stats.begin(), c.memory_stats.end());
  out->set_generated_code_bytes(c.generated_code_bytes);
  out->set_compile_seconds(c.compile_seconds);
}

void Encode(const Hello& e, control::Event* out) {
  auto* h = out->mutable_hello();
  h->set_worker(e.worker.value());
  h->set_pid(e.pid);
  h->set_host(e.host);
  h->set_data_address(e.data_address);
  h->set_platform(e.device.platform);
  h->set_device_kind(e.device.device_kind);
  for (const auto& kind : e.device.memory_kinds) h->add_memory_kinds(kind);
  h->set_runtime_version(e.device.runtime_version);
  h->set_compile_target(e.device.compile_target);
  h->set_memory(e.memory);
  h->set_num_devices(e.device.num_devices);
  h->set_token(e.token);
  h->set_spare(e.spare);
}
void Encode(const Reply& e, control::Event* out) {
  auto* r = out->mutable_reply();
  r->set_request(e.request.value());
  ToProto(e.status, r->mutable_status());
  if (e.compiled.has_value()) ToProto(*e.compiled, r->mutable_compile());
  r->set_text(e.text);
  r->mutable_numbers()->insert(e.numbers.begin(), e.numbers.end());
}
void Encode(const FetchData& e, control::Event* out) {
  auto* f = out->mutable_fetch_data();
  f->set_request(e.request.value());
  f->set_device(e.device);
  f->set_offset(e.offset);
  f->set_total(static_cast<int64_t>(e.bytes->size()));
  f->set_bytes(e.bytes->data() + e.offset, static_cast<size_t>(e.size));
}
void Encode(const LaunchDone& e, control::Event* out) {
  out->mutable_launch_done()->set_epoch(e.epoch.value());
  out->mutable_launch_done()->set_seq(e.seq.value());
}
void Encode(const LaunchFailed& e, control::Event* out) {
  auto* f = out->mutable_launch_failed();
  f->set_epoch(e.epoch.value());
  f->set_seq(e.seq.value());
  ToProto(e.status, f->mutable_status());
  f->set_peer_failure(device::IsPeerFailure(e.status));
}
void Encode(const AtRendezvous& e, control::Event* out) {
  out->mutable_at_rendezvous()->set_epoch(e.epoch.value());
  out->mutable_at_rendezvous()->set_seq(e.seq.value());
}
void Encode(const EpochOpened& e, control::Event* out) {
  auto* o = out->mutable_epoch_opened();
  o->set_epoch(e.epoch.value());
  ToProto(e.status, o->mutable_status());
  o->set_adopted_buffers(e.adopted_buffers);
  o->set_drain_us(e.drain_us);
  o->set_client_us(e.client_us);
  o->set_adopt_us(e.adopt_us);
}
void Encode(const Pong& e, control::Event* out) {
  auto* p = out->mutable_pong();
  p->set_number(e.number);
  p->set_inflight(e.inflight);
  p->set_resident_bytes(e.resident_bytes);
  p->set_buffers(e.buffers);
  p->set_buffer_bytes(e.buffer_bytes);
  p->set_open_files(e.open_files);
  p->set_threads(e.threads);
  p->set_compiles(e.compiles);
  p->set_loads(e.loads);
  p->set_launches(e.launches);
  p->set_epoch(e.epoch.value());
  p->set_admitted(e.admitted.value());
  p->set_waiting(e.waiting.value());
  p->set_waits_for(e.waits_for);
  p->mutable_transfers()->insert(e.transfers.begin(), e.transfers.end());
  p->set_transfer_fallback(e.transfer_fallback);
}

void Encode(const TransferFailed& e, control::Event* out) {
  auto* f = out->mutable_transfer_failed();
  f->set_transfer(e.transfer.value());
  f->set_to_worker(e.to.value());
  ToProto(e.status, f->mutable_status());
}

}  // namespace

Chunk DecodeChunk(control::Data* data) {
  Chunk out;
  out.transfer = TransferId(data->transfer());
  out.offset = data->offset();
  out.total = data->total();
  out.bytes = std::move(*data->mutable_bytes());
  if (data->has_error()) out.error = FromProto(data->error());
  if (data->has_strides()) out.byte_strides = Values<int64_t>(data->byte_strides());
  if (data->has_checksum()) out.checksum = data->checksum();
  out.attempt = data->attempt();
  out.segment = std::move(*data->mutable_segment());
  out.file = std::move(*data->mutable_file());
  out.file_offset = data->file_offset();
  return out;
}

absl::StatusOr<Command> DecodeCommand(absl::string_view bytes) {
  control::Command c;
  if (!c.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError("the head sent bytes that are no command");
  }
  switch (c.command_case()) {
    case control::Command::kWelcome:
      return FromProto(c.welcome());
    case control::Command::kOpenEpoch:
      return OpenEpoch{EpochId(c.open_epoch().epoch()), FromProto(c.open_epoch().nodes()),
                       c.open_epoch().drain_ms()};
    case control::Command::kSetNodes:
      return SetNodes{EpochId(c.set_nodes().epoch()), FromProto(c.set_nodes().nodes())};
    case control::Command::kAbortEpoch:
      return AbortEpoch{EpochId(c.abort_epoch().epoch()), CauseFromProto(c.abort_epoch().cause())};
    case control::Command::kBuild:
      return FromProto(c.mutable_build());
    case control::Command::kSend:
      return Send{TransferId(c.send().transfer()),        BufferId(c.send().buffer()),
                  c.send().device(),                      WorkerId(c.send().to_worker()),
                  c.send().whole(),                       Values<int64_t>(c.send().start()),
                  Values<int64_t>(c.send().dims())};
    case control::Command::kData:
      return DecodeChunk(c.mutable_data());
    case control::Command::kFetch:
      return Fetch{RequestId(c.fetch().request()), BufferId(c.fetch().buffer()),
                   Values<int32_t>(c.fetch().devices())};
    case control::Command::kAwaitReady:
      return AwaitReady{RequestId(c.await_ready().request()),
                        Ids<BufferId>(c.await_ready().buffers())};
    case control::Command::kCompile:
      return Compile{RequestId(c.compile().request()), ProgramId(c.compile().program()),
                     {c.compile().code(), c.compile().options(), c.compile().num_devices(),
                      c.compile().kind()}};
    case control::Command::kLoadProgram:
      return FromProto(c.mutable_load_program());
    case control::Command::kBind:
      return FromProto(c.bind());
    case control::Command::kUnbind:
      return Unbind{BindingId(c.unbind().binding())};
    case control::Command::kDropProgram:
      return DropProgram{ProgramId(c.drop_program().program())};
    case control::Command::kLaunch:
      return FromProto(c.launch());
    case control::Command::kFree:
      return Free{Ids<BufferId>(c.free().buffers())};
    case control::Command::kIntrospect:
      return Introspect{RequestId(c.introspect().request()), ProgramId(c.introspect().program()),
                        c.introspect().what()};
    case control::Command::kPing:
      return Ping{c.ping().number()};
    case control::Command::kFailTransfers:
      return FailTransfers{WorkerId(c.fail_transfers().from_worker()),
                           CauseFromProto(c.fail_transfers().cause())};
    case control::Command::kProceed:
      return Proceed{EpochId(c.proceed().epoch()), LaunchSeq(c.proceed().seq())};
    case control::Command::kFetchFile: {
      FetchFile fetch{RequestId(c.fetch_file().request()), c.fetch_file().path(), {}};
      for (const control::FilePart& part : c.fetch_file().parts()) {
        fetch.parts.push_back({BufferId(part.buffer()), part.device(), part.offset(),
                               Values<int64_t>(part.dims()), Values<int64_t>(part.start())});
      }
      return fetch;
    }
    case control::Command::kFailTransfer:
      return FailTransfer{TransferId(c.fail_transfer().transfer()),
                          CauseFromProto(c.fail_transfer().cause())};
    case control::Command::kShutdown:
      return Shutdown{c.shutdown().reason()};
    case control::Command::COMMAND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(
      "the head sent a command that this worker does not know; run the same version on both");
}

void EncodeEvent(const Event& event, control::Event* out) {
  std::visit([out](const auto& e) { Encode(e, out); }, event);
}

std::string EncodeEvent(const Event& event) {
  control::Event out;
  EncodeEvent(event, &out);
  return out.SerializeAsString();
}

}  // namespace causeway::worker
