// Programs: compiling them and answering what clients ask about them.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"
#include "causeway/proxy/fetch_program.h"
#include "causeway/proxy/handlers.h"
#include "causeway/proxy/request_codec.h"
#include "causeway/wire/ifrt_status.h"
#include "causeway/wire/ifrt_values.h"

namespace causeway::proxy {
namespace {

// The devices of a program whose options leave the choice open.
absl::StatusOr<std::vector<DeviceId>> DefaultDevices(const core::ClusterView& view,
                                                     const wire::CompileOptions& options) {
  const int64_t available = static_cast<int64_t>(view.devices.size());
  const int64_t wanted = options.num_replicas * options.num_partitions;
  const int64_t first = std::max<int64_t>(0, options.device_ordinal);
  if (wanted <= 0 || wanted > available - first) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the program asks for ", wanted, " devices from number ", first, " on; this cluster has ",
        available, "; give a device assignment that fits, or add workers"));
  }
  std::vector<DeviceId> out;
  for (int64_t i = 0; i < wanted; ++i) out.push_back(view.devices[first + i].id);
  return out;
}

std::vector<core::ArraySpec> ToSpecs(std::vector<wire::ProgramSpec> specs) {
  std::vector<core::ArraySpec> out;
  for (wire::ProgramSpec& spec : specs) {
    out.push_back({.dtype = spec.dtype,
                   .shape = std::move(spec.shape),
                   .sharding = std::move(spec.sharding),
                   .layout = std::move(spec.layout)});
  }
  return out;
}

absl::StatusOr<core::CompileRequest> DecodeCompile(Session& session,
                                                   const ifrt::CompileRequest& proto) {
  const std::string& type = proto.program().type_name();
  if (!proto.host_callbacks().empty()) {
    return absl::UnimplementedError(
        "this server does not run the protocol's host callbacks, which stock clients cannot "
        "answer; install the causeway client package, which brings its own");
  }
  core::CompileRequest request;
  if (type == "xla::ifrt::XlaProgram") {
    request.kind = core::ProgramKind::kXla;
    request.program = proto.program().data();
    if (proto.compile_options().type_name() != "xla::ifrt::XlaCompileOptions") {
      return absl::UnimplementedError(absl::StrCat(
          "compile options of type '", proto.compile_options().type_name(),
          "' do not go with an XLA program; send XlaCompileOptions"));
    }
    ASSIGN_OR_RETURN(wire::CompileOptions options,
                     wire::ParseXlaCompileOptions(proto.compile_options().data()));
    request.options = std::move(options.options);
    request.devices = std::move(options.devices);
    if (request.devices.empty()) {
      ASSIGN_OR_RETURN(request.devices, DefaultDevices(session.runtime().Describe(), options));
    }
    return request;
  }
  if (type == "xla::ifrt::PluginProgram") {
    request.kind = core::ProgramKind::kPlugin;
    ASSIGN_OR_RETURN(request.program, wire::ParsePluginProgram(proto.program().data()));
    ASSIGN_OR_RETURN(std::optional<core::CompileRequest> fetch,
                     DecodeFetchProgram(request.program, session.buffers->folder));
    return fetch.has_value() ? *std::move(fetch) : request;
  }
  if (type == "xla::ifrt::CustomCallProgram") {
    ASSIGN_OR_RETURN(wire::CustomCallProgram program,
                     wire::ParseCustomCallProgram(proto.program().data()));
    if (!absl::StartsWith(program.type, "jax_colocated_python_")) {
      return absl::UnimplementedError(
          absl::StrCat("custom call programs of type '", program.type,
                       "' are not supported; only JAX's colocated Python is"));
    }
    request.kind = core::ProgramKind::kColocatedPython;
    request.program = std::move(program.text);
    request.name = std::move(program.name);
    request.devices = std::move(program.devices);
    request.input_specs = ToSpecs(std::move(program.input_specs));
    request.output_specs = ToSpecs(std::move(program.output_specs));
    return request;
  }
  return absl::UnimplementedError(absl::StrCat(
      "programs of type '", type, "' are not supported; send an XlaProgram (StableHLO), a "
      "PluginProgram or a CustomCallProgram"));
}

void AnswerCompile(Call call, const core::ExecutableView& view) {
  Session& session = call.session();
  ifrt::CompileResponse* out = call.response().mutable_compile_response();
  out->set_loaded_executable_handle(view.handle.value());
  out->set_name(view.info->name);
  out->set_num_devices(static_cast<int32_t>(view.devices.size()));
  for (DeviceId id : view.devices) {
    out->add_device_ids(id.value());
    out->add_addressable_device_ids(id.value());
  }
  if (!view.info->fingerprint.empty()) out->set_fingerprint_value(view.info->fingerprint);
  // Clients always ask for it, once; what is known here is that compiling succeeded.
  const uint64_t ready = session.runtime().NewServerHandle(session.id);
  session.futures.Put(ready, {});
  out->set_ready_future_handle(ready);
  call.Ok();
}

void FillLayouts(const std::vector<std::vector<int64_t>>& layouts,
                 ifrt::MetadataResponse::LayoutList* out) {
  for (const std::vector<int64_t>& order : layouts) {
    ifrt::XlaLayoutProto* layout = out->add_layouts();
    layout->mutable_minor_to_major()->Add(order.begin(), order.end());
    layout->set_tail_padding_alignment_in_elements(1);
  }
}

void FillMemoryStats(const std::map<std::string, int64_t>& stats,
                     ifrt::CompiledMemoryStatsProto* out) {
  for (const auto& [name, value] : stats) {
    const auto* field = out->GetDescriptor()->FindFieldByName(name);
    if (field == nullptr || field->cpp_type() != field->CPPTYPE_INT64) continue;
    out->GetReflection()->SetInt64(out, field, value);
  }
}

void FillMetadata(const core::ExecutableView& view, const std::string& default_memory_kind,
                  ifrt::MetadataResponse* out) {
  const core::ProgramInfo& info = *view.info;
  if (info.parameter_shardings.has_value()) {
    auto* list = out->mutable_parameter_shardings();
    for (const std::string& bytes : *info.parameter_shardings) list->add_shardings(bytes);
  }
  if (info.output_shardings.has_value()) {
    auto* list = out->mutable_output_shardings();
    for (const std::string& bytes : *info.output_shardings) list->add_shardings(bytes);
  }
  if (info.parameter_layouts.ok()) {
    FillLayouts(*info.parameter_layouts, out->mutable_parameter_layouts_list());
  } else {
    wire::StatusToProto(info.parameter_layouts.status(), out->mutable_parameter_layouts_error());
  }
  if (!info.output_layouts.ok()) {
    wire::StatusToProto(info.output_layouts.status(), out->mutable_output_layouts_error());
  } else if (info.output_layouts->size() != info.output_dtypes.size()) {
    // A list of another length than the outputs would stop the client.
    wire::StatusToProto(absl::UnimplementedError("the backend did not tell every output's layout"),
                        out->mutable_output_layouts_error());
  } else {
    FillLayouts(*info.output_layouts, out->mutable_output_layouts_list());
  }
  auto* kinds = out->mutable_output_memory_kinds()->add_memory_kind_lists();
  for (size_t i = 0; i < info.output_dtypes.size(); ++i) {
    const bool known = i < info.output_memory_kinds.size() && !info.output_memory_kinds[i].empty();
    kinds->add_memory_kinds(known ? info.output_memory_kinds[i] : default_memory_kind);
  }
  auto* donated = out->mutable_donated_input_indices();
  for (int index : info.donated_inputs) donated->add_donated_input_indices(index);
  if (info.memory_stats.ok()) {
    FillMemoryStats(*info.memory_stats, out->mutable_compiled_memory_stats());
  } else {
    wire::StatusToProto(info.memory_stats.status(), out->mutable_compiled_memory_stats_error());
  }
  out->set_size_of_generated_code_in_bytes(info.generated_code_bytes);
}

}  // namespace

void HandleCompile(Call call, const ifrt::CompileRequest& request) {
  Session& session = call.session();
  absl::StatusOr<core::CompileRequest> decoded = DecodeCompile(session, request);
  if (!decoded.ok()) return call.Fail(call.Annotate(decoded.status()));
  session.runtime().Compile(
      session.id, *std::move(decoded),
      [call = std::move(call)](
          absl::StatusOr<std::shared_ptr<const core::ExecutableView>> view) mutable {
        if (!view.ok()) return call.Fail(call.Annotate(view.status()));
        AnswerCompile(std::move(call), **view);
      });
}

void HandleMetadata(Call call, const ifrt::ExecutableRequest& request) {
  Session& session = call.session();
  auto view = session.runtime().GetExecutable(
      session.id, ExecutableHandle(request.loaded_executable_handle()));
  if (!view.ok()) return call.Fail(view.status());
  FillMetadata(**view, session.default_memory_kind,
               call.response().mutable_loaded_executable_metadata_response());
  call.Ok();
}

void HandleCostAnalysis(Call call, const ifrt::ExecutableRequest& request) {
  Session& session = call.session();
  session.runtime().GetCostAnalysis(
      session.id, ExecutableHandle(request.loaded_executable_handle()),
      [call = std::move(call)](absl::StatusOr<std::map<std::string, double>> costs) mutable {
        auto* out = call.response().mutable_loaded_executable_cost_analysis_response();
        if (!costs.ok()) {
          wire::StatusToProto(costs.status(), out->mutable_status());
          return call.Ok();
        }
        auto& attributes = *out->mutable_attributes()->mutable_attributes();
        for (const auto& [name, value] : *costs) {
          attributes[name].set_float_value(static_cast<float>(value));
        }
        call.Ok();
      });
}

void HandleProgramText(Call call, const ifrt::ExecutableRequest& request) {
  Session& session = call.session();
  session.runtime().GetProgramText(
      session.id, ExecutableHandle(request.loaded_executable_handle()),
      [call = std::move(call)](absl::StatusOr<std::string> text) mutable {
        auto* out =
            call.response().mutable_loaded_executable_human_readable_program_text_response();
        if (text.ok()) {
          out->set_human_readable_program_text(*std::move(text));
        } else {
          wire::StatusToProto(text.status(), out->mutable_status());
        }
        call.Ok();
      });
}

void HandleExecutableDelete(Call call, const ifrt::ExecutableRequest& request) {
  Session& session = call.session();
  absl::Status status = session.runtime().DestructExecutable(
      session.id, ExecutableHandle(request.loaded_executable_handle()));
  if (!status.ok()) return call.Fail(std::move(status));
  const uint64_t future = session.runtime().NewServerHandle(session.id);
  session.futures.Put(future, {});
  call.response().mutable_loaded_executable_delete_response()->set_future_handle(future);
  call.Ok();
}

void HandleExecutableIsDeleted(Call call, const ifrt::ExecutableRequest& request) {
  Session& session = call.session();
  const bool exists = session.runtime()
                          .GetExecutable(session.id,
                                         ExecutableHandle(request.loaded_executable_handle()))
                          .ok();
  call.response().mutable_loaded_executable_is_deleted_response()->set_deleted(!exists);
  call.Ok();
}

void HandleExecutableDestruct(Call call, const ifrt::ExecutableRequest& request) {
  Session& session = call.session();
  absl::Status status = session.runtime().DestructExecutable(
      session.id, ExecutableHandle(request.loaded_executable_handle()));
  if (!status.ok()) return call.Fail(std::move(status));
  call.response().mutable_loaded_executable_destruct_response();
  call.Ok();
}

}  // namespace causeway::proxy
