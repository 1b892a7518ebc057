// Encodes commands of the head and decodes events of its workers.
#include "causeway/wire/control_codec.h"

#include <type_traits>

#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"
#include "control.pb.h"

namespace causeway::wire {
namespace {

template <class T>
Encoded Finish(const T& command) {
  return std::make_shared<const std::string>(command.SerializeAsString());
}

absl::Status FromProto(const control::Status& status) {
  if (status.code() == 0) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.code()), status.message());
}

void ToProto(const NodeMap& nodes, control::NodeMap* out) {
  for (int node : nodes.nodes) out->add_node(node);
  for (const std::string& address : nodes.data_addresses) out->add_data_address(address);
  for (const std::string& memory : nodes.memories) out->add_memory(memory);
}

void ToProto(const FromInline& source, control::ShardBuild* out) {
  control::Inline* to = out->mutable_inline_bytes();
  to->set_data(source.data);
  if (source.byte_strides.has_value()) {
    to->set_has_strides(true);
    for (int64_t stride : *source.byte_strides) to->add_byte_strides(stride);
  }
}

void ToProto(const FromShard& source, control::ShardBuild* out) {
  control::Ref* ref = source.copy ? out->mutable_copy() : out->mutable_alias();
  ref->set_buffer(source.buffer.value());
  ref->set_device(source.device.value());
}

void ToProto(const FromTransfer& source, control::ShardBuild* out) {
  out->set_transfer(source.transfer.value());
}

void ToProto(const FromPieces& source, control::ShardBuild* out) {
  control::Pieces* pieces = out->mutable_pieces();
  for (const PieceBuild& p : source.pieces) {
    control::Piece* piece = pieces->add_pieces();
    for (int64_t v : p.start) piece->add_start(v);
    for (int64_t v : p.dims) piece->add_dims(v);
    if (p.transfer.value() != 0) {
      piece->set_transfer(p.transfer.value());
    } else {
      control::LocalPart* local = piece->mutable_local();
      local->set_buffer(p.buffer.value());
      local->set_device(p.device.value());
      for (int64_t v : p.source_start) local->add_start(v);
    }
  }
}

absl::StatusOr<std::vector<model::ArrayType>> FromProto(
    const google::protobuf::RepeatedPtrField<control::ArrayType>& types) {
  std::vector<model::ArrayType> out;
  for (const control::ArrayType& type : types) {
    if (!model::IsKnownDType(type.dtype())) {
      return absl::InvalidArgumentError(
          absl::StrCat("control stream: a program with unknown element type ", type.dtype()));
    }
    out.push_back({static_cast<model::DType>(type.dtype()),
                   model::Shape(type.dims().begin(), type.dims().end())});
    RETURN_IF_ERROR(model::CheckShape(out.back().shape));
  }
  return out;
}

absl::StatusOr<CompileResult> FromProto(const control::CompileResult& from) {
  CompileResult out;
  out.serialized = from.serialized();
  out.name = from.name();
  out.fingerprint = from.fingerprint();
  ASSIGN_OR_RETURN(std::vector<model::ArrayType> outputs, FromProto(from.outputs()));
  for (model::ArrayType& output : outputs) {
    out.output_dtypes.push_back(output.dtype);
    out.output_shapes.push_back(std::move(output.shape));
  }
  if (from.has_parameters()) {
    ASSIGN_OR_RETURN(out.parameters, FromProto(from.parameters()));
  }
  if (from.has_parameter_shardings()) {
    out.parameter_shardings.emplace(from.parameter_shardings().begin(),
                                    from.parameter_shardings().end());
  }
  if (from.has_output_shardings()) {
    out.output_shardings.emplace(from.output_shardings().begin(), from.output_shardings().end());
  }
  auto layouts = [](const control::Status& status, const auto& list)
      -> absl::StatusOr<std::vector<std::vector<int64_t>>> {
    if (status.code() != 0) return FromProto(status);
    std::vector<std::vector<int64_t>> result;
    for (const control::LayoutOrder& l : list) {
      result.emplace_back(l.minor_to_major().begin(), l.minor_to_major().end());
    }
    return result;
  };
  out.parameter_layouts = layouts(from.parameter_layouts_status(), from.parameter_layouts());
  out.output_layouts = layouts(from.output_layouts_status(), from.output_layouts());
  out.output_memory_kinds.assign(from.output_memory_kinds().begin(),
                                 from.output_memory_kinds().end());
  out.donated_inputs.assign(from.donated_inputs().begin(), from.donated_inputs().end());
  if (from.memory_stats_status().code() != 0) {
    out.memory_stats = FromProto(from.memory_stats_status());
  } else {
    out.memory_stats =
        std::map<std::string, int64_t>(from.memory_stats().begin(), from.memory_stats().end());
  }
  out.generated_code_bytes = from.generated_code_bytes();
  out.compile_seconds = from.compile_seconds();
  return out;
}

}  // namespace

Encoded EncodeEnd(const absl::Status& status) {
  control::Status end;
  end.set_code(static_cast<int>(status.code()));
  end.set_message(std::string(status.message()));
  return Finish(end);
}

absl::Status DecodeEnd(absl::string_view payload) {
  control::Status end;
  if (!end.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
    return absl::UnknownError("the stream ended without a readable reason");
  }
  return FromProto(end);
}

Encoded EncodeWelcome(const Welcome& welcome) {
  control::Command command;
  control::Welcome* out = command.mutable_welcome();
  out->set_worker(welcome.worker.value());
  out->set_incarnation(welcome.incarnation.value());
  out->set_devices_per_host(welcome.devices_per_host);
  out->set_num_workers(welcome.num_workers);
  out->set_coordinator(welcome.coordinator);
  out->set_num_nodes(welcome.num_nodes);
  out->set_platform(welcome.platform);
  out->set_max_inflight_launches(welcome.max_inflight_launches);
  out->set_heartbeat_ms(welcome.heartbeat_ms);
  out->set_token(welcome.token);
  out->set_push_token(welcome.push_token);
  out->set_callbacks(welcome.callbacks);
  out->set_checksums(welcome.checksums);
  out->set_sentinel(welcome.sentinel);
  return Finish(command);
}

Encoded EncodeOpenEpoch(EpochId epoch, const NodeMap& nodes, uint64_t drain_ms) {
  control::Command command;
  control::OpenEpoch* out = command.mutable_open_epoch();
  out->set_epoch(epoch.value());
  ToProto(nodes, out->mutable_nodes());
  out->set_drain_ms(drain_ms);
  return Finish(command);
}

Encoded EncodeSetNodes(EpochId epoch, const NodeMap& nodes) {
  control::Command command;
  command.mutable_set_nodes()->set_epoch(epoch.value());
  ToProto(nodes, command.mutable_set_nodes()->mutable_nodes());
  return Finish(command);
}

Encoded EncodeAbortEpoch(EpochId epoch, const absl::Status& cause) {
  control::Command command;
  control::AbortEpoch* out = command.mutable_abort_epoch();
  out->set_epoch(epoch.value());
  out->mutable_cause()->set_code(static_cast<int>(cause.code()));
  out->mutable_cause()->set_message(std::string(cause.message()));
  return Finish(command);
}

Encoded EncodeBuild(BufferId buffer, model::DType dtype, absl::string_view memory_kind,
                    absl::Span<const DeviceId> devices, absl::Span<const ShardBuild> shards) {
  control::Command command;
  control::Build* out = command.mutable_build();
  out->set_buffer(buffer.value());
  out->set_dtype(static_cast<int>(dtype));
  out->set_memory_kind(std::string(memory_kind));
  for (DeviceId d : devices) out->add_devices(d.value());
  for (const ShardBuild& shard : shards) {
    control::ShardBuild* to = out->add_shards();
    to->set_device(shard.device.value());
    for (int64_t d : shard.dims) to->add_dims(d);
    std::visit([to](const auto& source) { ToProto(source, to); }, shard.source);
  }
  return Finish(command);
}

Encoded EncodeSend(TransferId transfer, BufferId buffer, DeviceId device, WorkerId to,
                   const std::optional<model::Box>& box) {
  control::Command command;
  control::Send* out = command.mutable_send();
  out->set_transfer(transfer.value());
  out->set_buffer(buffer.value());
  out->set_device(device.value());
  out->set_to_worker(to.value());
  out->set_whole(!box.has_value());
  if (box.has_value()) {
    for (int64_t v : box->start) out->add_start(v);
    for (int64_t v : box->shape()) out->add_dims(v);
  }
  return Finish(command);
}

Encoded EncodeFetch(RequestId request, BufferId buffer, absl::Span<const DeviceId> devices) {
  control::Command command;
  control::Fetch* out = command.mutable_fetch();
  out->set_request(request.value());
  out->set_buffer(buffer.value());
  for (DeviceId d : devices) out->add_devices(d.value());
  return Finish(command);
}

Encoded EncodeFetchFile(RequestId request, absl::string_view path,
                        absl::Span<const FilePart> parts) {
  control::Command command;
  control::FetchFile* out = command.mutable_fetch_file();
  out->set_request(request.value());
  out->set_path(std::string(path));
  for (const FilePart& from : parts) {
    control::FilePart* part = out->add_parts();
    part->set_buffer(from.buffer.value());
    part->set_device(from.device.value());
    part->set_offset(from.offset);
    for (int64_t d : from.dims) part->add_dims(d);
    for (int64_t s : from.start) part->add_start(s);
  }
  return Finish(command);
}

Encoded EncodeAwaitReady(RequestId request, absl::Span<const BufferId> buffers) {
  control::Command command;
  command.mutable_await_ready()->set_request(request.value());
  for (BufferId b : buffers) command.mutable_await_ready()->add_buffers(b.value());
  return Finish(command);
}

Encoded EncodeCompile(RequestId request, ProgramId program, absl::string_view code,
                      absl::string_view options, int num_devices, int kind) {
  control::Command command;
  control::Compile* out = command.mutable_compile();
  out->set_request(request.value());
  out->set_program(program.value());
  out->set_code(std::string(code));
  out->set_options(std::string(options));
  out->set_num_devices(num_devices);
  out->set_kind(kind);
  return Finish(command);
}

Encoded EncodeLoadProgram(const LoadProgram& load) {
  control::Command command;
  control::LoadProgram* out = command.mutable_load_program();
  out->set_program(load.program.value());
  out->set_serialized(std::string(load.serialized));
  out->set_code(std::string(load.code));
  out->set_options(std::string(load.options));
  out->set_num_devices(load.num_devices);
  out->set_num_outputs(load.num_outputs);
  out->set_kind(load.kind);
  out->set_name(std::string(load.name));
  return Finish(command);
}

Encoded EncodeBind(BindingId binding, ProgramId program, absl::Span<const DeviceId> devices,
                   absl::Span<const std::string> output_memory_kinds,
                   absl::Span<const model::DType> output_dtypes, bool host_callbacks) {
  control::Command command;
  control::Bind* out = command.mutable_bind();
  if (host_callbacks) out->set_host_callbacks(true);
  out->set_binding(binding.value());
  out->set_program(program.value());
  for (DeviceId d : devices) out->add_devices(d.value());
  for (const std::string& kind : output_memory_kinds) out->add_output_memory_kinds(kind);
  for (model::DType dtype : output_dtypes) out->add_output_dtypes(static_cast<int>(dtype));
  return Finish(command);
}

Encoded EncodeHostBind(BindingId binding, ProgramId program, absl::Span<const DeviceId> devices,
                       absl::Span<const HostOutput> outputs, SessionId session) {
  control::Command command;
  control::Bind* out = command.mutable_bind();
  out->set_binding(binding.value());
  out->set_program(program.value());
  for (DeviceId d : devices) out->add_devices(d.value());
  for (const HostOutput& output : outputs) {
    control::HostOutput* to = out->add_host_outputs();
    to->set_dtype(static_cast<int>(output.dtype));
    to->set_memory_kind(output.memory_kind);
    for (const auto& [device, dims] : output.shards) {
      control::HostShardSpec* shard = to->add_shards();
      shard->set_device(device.value());
      for (int64_t d : dims) shard->add_dims(d);
    }
  }
  out->set_session(session.value());
  return Finish(command);
}

Encoded EncodeUnbind(BindingId binding) {
  control::Command command;
  command.mutable_unbind()->set_binding(binding.value());
  return Finish(command);
}

Encoded EncodeDropProgram(ProgramId program) {
  control::Command command;
  command.mutable_drop_program()->set_program(program.value());
  return Finish(command);
}

Encoded EncodeLaunch(const Launch& launch) {
  control::Command command;
  control::Launch* out = command.mutable_launch();
  out->set_binding(launch.binding.value());
  out->set_epoch(launch.epoch.value());
  out->set_seq(launch.seq.value());
  out->set_request(launch.request.value());
  out->mutable_args()->Reserve(static_cast<int>(launch.args.size()));
  for (BufferId b : launch.args) out->add_args(b.value());
  for (BufferId b : launch.outputs) out->add_outputs(b.value());
  for (int i : launch.protect) out->add_protect(i);
  out->set_stream(launch.stream);
  return Finish(command);
}

Encoded EncodeFree(absl::Span<const BufferId> buffers) {
  control::Command command;
  for (BufferId b : buffers) command.mutable_free()->add_buffers(b.value());
  return Finish(command);
}

Encoded EncodeIntrospect(RequestId request, ProgramId program, absl::string_view what) {
  control::Command command;
  control::Introspect* out = command.mutable_introspect();
  out->set_request(request.value());
  out->set_program(program.value());
  out->set_what(std::string(what));
  return Finish(command);
}

Encoded EncodePing(uint64_t number) {
  control::Command command;
  command.mutable_ping()->set_number(number);
  return Finish(command);
}

Encoded EncodeProceed(EpochId epoch, LaunchSeq seq) {
  control::Command command;
  command.mutable_proceed()->set_epoch(epoch.value());
  command.mutable_proceed()->set_seq(seq.value());
  return Finish(command);
}

Encoded EncodeShutdown(absl::string_view reason) {
  control::Command command;
  command.mutable_shutdown()->set_reason(std::string(reason));
  return Finish(command);
}

Encoded EncodeFailTransfers(WorkerId from, const absl::Status& cause) {
  control::Command command;
  control::FailTransfers* out = command.mutable_fail_transfers();
  out->set_from_worker(from.value());
  out->mutable_cause()->set_code(static_cast<int>(cause.code()));
  out->mutable_cause()->set_message(std::string(cause.message()));
  return Finish(command);
}

Encoded EncodeFailTransfer(TransferId transfer, const absl::Status& cause) {
  control::Command command;
  control::FailTransfer* out = command.mutable_fail_transfer();
  out->set_transfer(transfer.value());
  out->mutable_cause()->set_code(static_cast<int>(cause.code()));
  out->mutable_cause()->set_message(std::string(cause.message()));
  return Finish(command);
}

absl::StatusOr<CompileResult> ParseCompileResult(absl::string_view bytes) {
  control::CompileResult result;
  if (!result.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError("these bytes are no compiled program");
  }
  return FromProto(result);
}

absl::StatusOr<Event> DecodeEvent(absl::string_view bytes) {
  control::Event event;
  if (!event.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError("control stream: bytes that are no event");
  }
  switch (event.event_case()) {
    case control::Event::kReply: {
      control::Reply* from = event.mutable_reply();
      ReplyEvent reply;
      reply.request = RequestId(from->request());
      reply.status = FromProto(from->status());
      if (from->has_compile()) {
        ASSIGN_OR_RETURN(reply.compile, FromProto(from->compile()));
        reply.compile_bytes = from->compile().SerializeAsString();
      }
      reply.text = std::move(*from->mutable_text());
      reply.numbers.insert(from->numbers().begin(), from->numbers().end());
      return Event(std::move(reply));
    }
    case control::Event::kFetchData: {
      control::FetchData* from = event.mutable_fetch_data();
      FetchDataEvent data;
      data.request = RequestId(from->request());
      data.device = DeviceId(from->device());
      data.offset = from->offset();
      data.total = from->total();
      data.bytes = absl::Cord(std::move(*from->mutable_bytes()));
      return Event(std::move(data));
    }
    case control::Event::kLaunchDone:
      return Event(LaunchDoneEvent{EpochId(event.launch_done().epoch()),
                                   LaunchSeq(event.launch_done().seq())});
    case control::Event::kLaunchFailed: {
      const control::LaunchFailed& from = event.launch_failed();
      if (from.status().code() == 0) {
        return absl::InvalidArgumentError("control stream: a launch that failed with OK");
      }
      return Event(LaunchFailedEvent{EpochId(from.epoch()), LaunchSeq(from.seq()),
                                     FromProto(from.status()), from.peer_failure()});
    }
    case control::Event::kAtRendezvous:
      return Event(AtRendezvousEvent{EpochId(event.at_rendezvous().epoch()),
                                     LaunchSeq(event.at_rendezvous().seq())});
    case control::Event::kEpochOpened: {
      const control::EpochOpened& from = event.epoch_opened();
      return Event(EpochOpenedEvent{EpochId(from.epoch()), FromProto(from.status()),
                                    from.adopted_buffers(), from.drain_us(), from.client_us(),
                                    from.adopt_us()});
    }
    case control::Event::kPong: {
      const control::Pong& from = event.pong();
      PongEvent pong;
      pong.number = from.number();
      pong.progress = {EpochId(from.epoch()), LaunchSeq(from.admitted()),
                       LaunchSeq(from.waiting()), from.waits_for()};
      pong.stats = {{"inflight", from.inflight()},
                    {"resident_bytes", from.resident_bytes()},
                    {"buffers", from.buffers()},
                    {"buffer_bytes", from.buffer_bytes()},
                    {"open_files", from.open_files()},
                    {"threads", from.threads()},
                    {"compiles", from.compiles()},
                    {"loads", from.loads()},
                    {"launches", from.launches()}};
      pong.transfers.insert(from.transfers().begin(), from.transfers().end());
      pong.transfer_fallback = from.transfer_fallback();
      return Event(std::move(pong));
    }
    case control::Event::kTransferFailed: {
      const control::TransferFailed& from = event.transfer_failed();
      return Event(TransferFailedEvent{TransferId(from.transfer()), WorkerId(from.to_worker()),
                                       FromProto(from.status())});
    }
    case control::Event::kHello:
      return absl::InvalidArgumentError("control stream: a second Hello");
    case control::Event::EVENT_NOT_SET:
      return absl::InvalidArgumentError("control stream: an empty or unknown event");
  }
  return absl::InvalidArgumentError("control stream: an unknown event");
}

}  // namespace causeway::wire
