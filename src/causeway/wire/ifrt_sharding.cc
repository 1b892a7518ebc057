// Sharding messages of the IFRT wire.
#include "causeway/wire/ifrt_sharding.h"

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"
#include "ifrt_values.pb.h"

namespace causeway::wire {
namespace {

using model::OpSharding;
using model::Shape;
using model::Sharding;
using model::ShardingRef;

constexpr absl::string_view kHlo = "xla::ifrt::HloSharding";
constexpr absl::string_view kSingleDevice = "xla::ifrt::SingleDeviceSharding";
constexpr absl::string_view kConcreteEven = "xla::ifrt::ConcreteEvenSharding";
constexpr absl::string_view kConcrete = "xla::ifrt::ConcreteSharding";
constexpr absl::string_view kOpaque = "xla::ifrt::OpaqueSharding";

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("the bytes of a ", what, " are malformed; client and server must agree on the "
                   "protocol (see the supported jaxlib versions)"));
}

template <class Proto>
bool Parse(absl::string_view bytes, Proto* out) {
  return out->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

// Enumerators of model::OpSharding::Type are in the wire's order.
absl::StatusOr<OpSharding::Type> TypeFromWire(int32_t value) {
  if (value < 0 || value > static_cast<int32_t>(OpSharding::Type::kUnreduced)) {
    return absl::UnimplementedError(absl::StrCat(
        "OpSharding type ", value, " is not known; this server knows types 0 to 6"));
  }
  return static_cast<OpSharding::Type>(value);
}

absl::StatusOr<OpSharding> FromProto(const ifrt::OpSharding& proto) {
  if (proto.has_named_sharding()) {
    return absl::UnimplementedError(
        "named (mesh) OpShardings are not supported; use a jaxlib that sends tile assignments");
  }
  OpSharding op;
  ASSIGN_OR_RETURN(op.type, TypeFromWire(proto.type()));
  op.tile_dims.assign(proto.tile_assignment_dimensions().begin(),
                      proto.tile_assignment_dimensions().end());
  op.tile_devices.assign(proto.tile_assignment_devices().begin(),
                         proto.tile_assignment_devices().end());
  op.iota_reshape_dims.assign(proto.iota_reshape_dims().begin(), proto.iota_reshape_dims().end());
  op.iota_transpose_perm.assign(proto.iota_transpose_perm().begin(),
                                proto.iota_transpose_perm().end());
  op.replicate_on_last_tile_dim = proto.replicate_on_last_tile_dim();
  for (int32_t type : proto.last_tile_dims()) {
    ASSIGN_OR_RETURN(OpSharding::Type parsed, TypeFromWire(type));
    op.last_tile_dims.push_back(parsed);
  }
  for (int64_t dim : op.tile_dims) {
    if (dim <= 0) return Malformed("tile assignment (a dimension is not positive)");
  }
  return op;
}

void ToProto(const OpSharding& op, ifrt::OpSharding* proto) {
  proto->set_type(static_cast<int32_t>(op.type));
  proto->mutable_tile_assignment_dimensions()->Add(op.tile_dims.begin(), op.tile_dims.end());
  proto->mutable_tile_assignment_devices()->Add(op.tile_devices.begin(), op.tile_devices.end());
  proto->mutable_iota_reshape_dims()->Add(op.iota_reshape_dims.begin(),
                                          op.iota_reshape_dims.end());
  proto->mutable_iota_transpose_perm()->Add(op.iota_transpose_perm.begin(),
                                            op.iota_transpose_perm.end());
  proto->set_replicate_on_last_tile_dim(op.replicate_on_last_tile_dim);
  for (OpSharding::Type type : op.last_tile_dims) {
    proto->add_last_tile_dims(static_cast<int32_t>(type));
  }
}

absl::StatusOr<std::vector<DeviceId>> Devices(const ifrt::DeviceListProto& proto) {
  if (proto.device_ids().empty()) {
    return absl::InvalidArgumentError("a sharding names no devices; it needs at least one");
  }
  std::vector<DeviceId> out;
  out.reserve(proto.device_ids_size());
  for (int32_t id : proto.device_ids()) out.emplace_back(id);
  return out;
}

absl::StatusOr<Shape> Dims(const ifrt::ShapeProto& proto) {
  Shape shape(proto.dims().begin(), proto.dims().end());
  RETURN_IF_ERROR(model::CheckShape(shape));
  return shape;
}

void SetDims(const Shape& shape, ifrt::ShapeProto* proto) {
  proto->mutable_dims()->Add(shape.begin(), shape.end());
}

absl::StatusOr<ShardingRef> ParseHlo(const std::string& data) {
  ifrt::HloShardingProto proto;
  if (!Parse(data, &proto)) return Malformed(kHlo);
  ASSIGN_OR_RETURN(std::vector<DeviceId> devices, Devices(proto.devices()));
  ASSIGN_OR_RETURN(OpSharding op, FromProto(proto.xla_op_sharding()));
  return Sharding::Hlo(std::move(devices), proto.memory_kind(), std::move(op));
}

absl::StatusOr<ShardingRef> ParseConcreteEven(const std::string& data) {
  ifrt::ConcreteEvenShardingProto proto;
  if (!Parse(data, &proto)) return Malformed(kConcreteEven);
  ASSIGN_OR_RETURN(std::vector<DeviceId> devices, Devices(proto.devices()));
  ASSIGN_OR_RETURN(Shape shape, Dims(proto.shape()));
  ASSIGN_OR_RETURN(Shape shard_shape, Dims(proto.shard_shape()));
  return Sharding::ConcreteEven(std::move(devices), proto.memory_kind(), std::move(shape),
                                std::move(shard_shape), proto.is_fully_replicated());
}

absl::StatusOr<ShardingRef> ParseConcrete(const std::string& data) {
  ifrt::ConcreteShardingProto proto;
  if (!Parse(data, &proto)) return Malformed(kConcrete);
  ASSIGN_OR_RETURN(std::vector<DeviceId> devices, Devices(proto.devices()));
  const bool dynamic = proto.has_dynamic_shape();
  std::vector<Shape> shapes;
  // A bounded dynamic shape occupies its bound.
  for (const auto& s : proto.shard_shapes()) {
    ASSIGN_OR_RETURN(shapes.emplace_back(), Dims(s));
  }
  for (const auto& s : proto.shard_dynamic_shapes()) {
    ASSIGN_OR_RETURN(shapes.emplace_back(), Dims(s.shape()));
  }
  if (shapes.size() != devices.size()) {
    return absl::InvalidArgumentError(absl::StrCat("a concrete sharding lists ", shapes.size(),
                                                   " shard shapes for ", devices.size(),
                                                   " devices; it needs one a device"));
  }
  ASSIGN_OR_RETURN(Shape shape, Dims(dynamic ? proto.dynamic_shape().shape() : proto.shape()));
  return Sharding::Concrete(std::move(devices), proto.memory_kind(), std::move(shape),
                            std::move(shapes));
}

template <class Proto>
void SetCommon(const Sharding& sharding, absl::string_view memory_kind, Proto* proto) {
  for (DeviceId id : sharding.devices()) proto->mutable_devices()->add_device_ids(id.value());
  proto->set_memory_kind(std::string(memory_kind));
}

}  // namespace

absl::StatusOr<model::OpSharding> ParseOpSharding(absl::string_view bytes) {
  ifrt::OpSharding proto;
  if (!Parse(bytes, &proto)) return Malformed("OpSharding");
  return FromProto(proto);
}

std::string SerializeOpSharding(const model::OpSharding& op) {
  ifrt::OpSharding proto;
  ToProto(op, &proto);
  return proto.SerializeAsString();
}

absl::StatusOr<model::ShardingRef> ParseSharding(absl::string_view bytes) {
  ifrt::ShardingProto outer;
  if (!Parse(bytes, &outer)) return Malformed("sharding");
  const ifrt::Serialized& inner = outer.serialized_sharding();
  const std::string& name = inner.type_name();
  if (name == kHlo) return ParseHlo(inner.data());
  if (name == kConcreteEven) return ParseConcreteEven(inner.data());
  if (name == kConcrete) return ParseConcrete(inner.data());
  if (name == kSingleDevice) {
    ifrt::SingleDeviceShardingProto proto;
    if (!Parse(inner.data(), &proto)) return Malformed(kSingleDevice);
    return Sharding::SingleDevice(DeviceId(proto.device_id()), proto.memory_kind());
  }
  if (name == kOpaque) {
    ifrt::OpaqueShardingProto proto;
    if (!Parse(inner.data(), &proto)) return Malformed(kOpaque);
    ASSIGN_OR_RETURN(std::vector<DeviceId> devices, Devices(proto.devices()));
    return Sharding::Opaque(std::move(devices), proto.memory_kind());
  }
  return absl::UnimplementedError(absl::StrCat(
      "sharding type '", name, "' is not supported; send an HloSharding, SingleDeviceSharding, "
      "ConcreteSharding, ConcreteEvenSharding or OpaqueSharding"));
}

std::string SerializeSharding(const model::Sharding& sharding,
                              absl::string_view default_memory_kind) {
  const std::string kind = sharding.memory_kind().empty() ? std::string(default_memory_kind)
                                                          : sharding.memory_kind();
  ifrt::ShardingProto outer;
  ifrt::Serialized* inner = outer.mutable_serialized_sharding();
  switch (sharding.kind()) {
    case Sharding::Kind::kHlo: {
      ifrt::HloShardingProto proto;
      SetCommon(sharding, kind, &proto);
      ToProto(sharding.op_sharding(), proto.mutable_xla_op_sharding());
      inner->set_type_name(std::string(kHlo));
      proto.SerializeToString(inner->mutable_data());
      break;
    }
    case Sharding::Kind::kSingleDevice: {
      ifrt::SingleDeviceShardingProto proto;
      proto.set_device_id(sharding.devices().front().value());
      proto.set_memory_kind(kind);
      inner->set_type_name(std::string(kSingleDevice));
      proto.SerializeToString(inner->mutable_data());
      break;
    }
    case Sharding::Kind::kConcreteEven: {
      ifrt::ConcreteEvenShardingProto proto;
      SetCommon(sharding, kind, &proto);
      SetDims(sharding.global_shape(), proto.mutable_shape());
      SetDims(sharding.shard_shape(), proto.mutable_shard_shape());
      proto.set_is_fully_replicated(sharding.fully_replicated());
      inner->set_type_name(std::string(kConcreteEven));
      proto.SerializeToString(inner->mutable_data());
      break;
    }
    case Sharding::Kind::kConcrete: {
      ifrt::ConcreteShardingProto proto;
      SetCommon(sharding, kind, &proto);
      SetDims(sharding.global_shape(), proto.mutable_shape());
      for (const Shape& s : sharding.shard_shapes()) SetDims(s, proto.add_shard_shapes());
      inner->set_type_name(std::string(kConcrete));
      proto.SerializeToString(inner->mutable_data());
      break;
    }
    case Sharding::Kind::kOpaque: {
      ifrt::OpaqueShardingProto proto;
      SetCommon(sharding, kind, &proto);
      inner->set_type_name(std::string(kOpaque));
      proto.SerializeToString(inner->mutable_data());
      break;
    }
  }
  return outer.SerializeAsString();
}

absl::StatusOr<model::ShardingRef> ShardingCache::Parse(absl::string_view bytes) {
  if (auto it = entries_.find(bytes); it != entries_.end()) return it->second;
  ASSIGN_OR_RETURN(model::ShardingRef sharding, ParseSharding(bytes));
  if (bytes.size() > kMaxEntryBytes) return sharding;
  // Starting over is rare and cheaper than keeping an order of use.
  if (entries_.size() >= max_entries_) entries_.clear();
  entries_.emplace(std::string(bytes), sharding);
  return sharding;
}

}  // namespace causeway::wire
