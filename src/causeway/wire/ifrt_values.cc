// Small values of the IFRT wire.
#include "causeway/wire/ifrt_values.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "causeway/base/limits.h"
#include "causeway/base/status_macros.h"
#include "causeway/wire/ifrt_sharding.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "ifrt_values.pb.h"

namespace causeway::wire {
namespace {

constexpr absl::string_view kPluginPrefix = "__serialized_plugin_program ";

template <class Proto>
absl::Status Parse(absl::string_view bytes, absl::string_view what, Proto* out) {
  if (out->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "the bytes of ", what, " are malformed; client and server must agree on the protocol"));
}

std::string SerializeDeterministically(const google::protobuf::MessageLite& message) {
  std::string out;
  {
    google::protobuf::io::StringOutputStream stream(&out);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return out;
}

absl::Status ReadAssignment(const ifrt::DeviceAssignmentProto& proto, CompileOptions* out) {
  out->num_replicas = proto.replica_count();
  out->num_partitions = proto.computation_count();
  if (proto.replica_count() <= 0 || proto.computation_count() <= 0 ||
      proto.computation_devices_size() != proto.computation_count()) {
    return absl::InvalidArgumentError(
        "the device assignment's counts do not fit its device lists; send one list a partition "
        "and one device a replica in it");
  }
  for (const auto& column : proto.computation_devices()) {
    if (column.replica_device_ids_size() != proto.replica_count()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the device assignment lists ", column.replica_device_ids_size(),
          " devices for a partition of ", proto.replica_count(), " replicas"));
    }
  }
  for (int r = 0; r < proto.replica_count(); ++r) {
    for (int c = 0; c < proto.computation_count(); ++c) {
      out->devices.emplace_back(
          static_cast<int32_t>(proto.computation_devices(c).replica_device_ids(r)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ProgramSpec> ReadSpec(const ifrt::ArraySpecProto& proto) {
  ProgramSpec spec;
  ASSIGN_OR_RETURN(spec.dtype, ParseDType(proto.dtype().kind()));
  spec.shape.assign(proto.shape().dims().begin(), proto.shape().dims().end());
  RETURN_IF_ERROR(model::CheckShape(spec.shape));
  ASSIGN_OR_RETURN(spec.sharding, ParseSharding(proto.sharding()));
  spec.layout = proto.layout();
  return spec;
}

}  // namespace

absl::StatusOr<model::DType> ParseDType(int32_t kind) {
  if (!model::IsKnownDType(kind)) {
    return absl::UnimplementedError(absl::StrCat(
        "element type number ", kind, " is not supported; convert the array to a supported type"));
  }
  return static_cast<model::DType>(kind);
}

std::string LayoutText(absl::Span<const int64_t> minor_to_major) {
  return absl::StrCat("{", absl::StrJoin(minor_to_major, ","), "}");
}

std::string RowMajorLayoutText(size_t rank) {
  std::vector<int64_t> order(rank);
  for (size_t i = 0; i < rank; ++i) order[i] = static_cast<int64_t>(rank - 1 - i);
  return LayoutText(order);
}

absl::StatusOr<std::string> ParseLayout(absl::string_view bytes) {
  if (bytes.empty()) return std::string();
  ifrt::LayoutProto outer;
  RETURN_IF_ERROR(Parse(bytes, "a layout", &outer));
  const ifrt::Serialized& inner = outer.serialized_layout();
  if (inner.type_name().empty()) return std::string();
  if (inner.type_name() == "xla::ifrt::CompactLayout") {
    ifrt::CompactLayoutProto proto;
    RETURN_IF_ERROR(Parse(inner.data(), "a compact layout", &proto));
    const std::vector<int64_t> order(proto.major_to_minor().rbegin(),
                                     proto.major_to_minor().rend());
    return LayoutText(order);
  }
  if (inner.type_name() == "xla::ifrt::PjRtLayout") {
    ifrt::PjRtLayoutProto proto;
    RETURN_IF_ERROR(Parse(inner.data(), "an XLA layout", &proto));
    const ifrt::XlaLayoutProto& layout = proto.xla_layout();
    std::string text = absl::StrCat("{", absl::StrJoin(layout.minor_to_major(), ","));
    if (!layout.tiles().empty()) {
      absl::StrAppend(&text, ":T");
      for (const auto& tile : layout.tiles()) {
        absl::StrAppend(&text, "(", absl::StrJoin(tile.dimensions(), ","), ")");
      }
    }
    return absl::StrCat(text, "}");
  }
  return absl::UnimplementedError(absl::StrCat("layout type '", inner.type_name(),
                                               "' is not supported; send a PjRtLayout or a "
                                               "CompactLayout"));
}

absl::StatusOr<CompileOptions> ParseXlaCompileOptions(absl::string_view bytes) {
  ifrt::XlaCompileOptionsProto proto;
  RETURN_IF_ERROR(Parse(bytes, "compile options", &proto));
  ifrt::CompileOptionsProto* options = proto.mutable_compile_options();
  CompileOptions out;
  out.portable = options->compile_portable_executable();
  const ifrt::ExecutableBuildOptionsProto& build = options->executable_build_options();
  if (build.num_replicas() > 0) out.num_replicas = build.num_replicas();
  if (build.num_partitions() > 0) out.num_partitions = build.num_partitions();
  if (out.num_replicas > limits::kShardsMax || out.num_partitions > limits::kShardsMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("compile options ask for ", out.num_replicas, " x ", out.num_partitions,
                     " devices; kShardsMax = ", limits::kShardsMax, " are possible"));
  }
  out.device_ordinal = build.device_ordinal();
  if (build.has_device_assignment()) {
    RETURN_IF_ERROR(ReadAssignment(build.device_assignment(), &out));
    options->mutable_executable_build_options()->clear_device_assignment();
  }
  out.options = SerializeDeterministically(*options);
  return out;
}

absl::StatusOr<std::string> ParsePluginProgram(absl::string_view bytes) {
  if (!absl::ConsumePrefix(&bytes, kPluginPrefix)) {
    return absl::InvalidArgumentError(
        "Bad PluginProgram: the text does not begin with the plugin program marker");
  }
  return std::string(bytes);
}

absl::StatusOr<CustomCallProgram> ParseCustomCallProgram(absl::string_view bytes) {
  ifrt::CustomCallProgramProto proto;
  RETURN_IF_ERROR(Parse(bytes, "a custom call program", &proto));
  CustomCallProgram out;
  out.type = proto.type();
  out.name = proto.name();
  out.text = std::move(*proto.mutable_serialized_program_text());
  for (int32_t id : proto.devices().device_ids()) out.devices.emplace_back(id);
  for (const auto& spec : proto.input_specs()) {
    ASSIGN_OR_RETURN(ProgramSpec parsed, ReadSpec(spec));
    out.input_specs.push_back(std::move(parsed));
  }
  for (const auto& spec : proto.output_specs()) {
    ASSIGN_OR_RETURN(ProgramSpec parsed, ReadSpec(spec));
    out.output_specs.push_back(std::move(parsed));
  }
  return out;
}

}  // namespace causeway::wire
