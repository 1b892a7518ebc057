// Tests of the IFRT codecs: shardings of every kind, options, layouts, programs, statuses.
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "causeway/wire/ifrt_sharding.h"
#include "causeway/wire/ifrt_status.h"
#include "causeway/wire/ifrt_values.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ifrt_values.pb.h"

namespace causeway::wire {
namespace {

using model::OpSharding;
using model::Shape;
using model::Sharding;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<DeviceId> Ids(std::initializer_list<int> ids) {
  std::vector<DeviceId> out;
  for (int id : ids) out.emplace_back(id);
  return out;
}

OpSharding Tiled() {
  OpSharding op;
  op.type = OpSharding::Type::kOther;
  op.tile_dims = {2, 1, 2};
  op.iota_reshape_dims = {2, 2};
  op.iota_transpose_perm = {1, 0};
  op.replicate_on_last_tile_dim = true;
  return op;
}

TEST(OpShardingCodec, RoundTripsIotaForm) {
  auto parsed = ParseOpSharding(SerializeOpSharding(Tiled()));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->type, OpSharding::Type::kOther);
  EXPECT_THAT(parsed->tile_dims, ElementsAre(2, 1, 2));
  EXPECT_THAT(parsed->iota_reshape_dims, ElementsAre(2, 2));
  EXPECT_THAT(parsed->iota_transpose_perm, ElementsAre(1, 0));
  EXPECT_TRUE(parsed->replicate_on_last_tile_dim);
}

TEST(OpShardingCodec, ReadsBytesAsXlaWritesThem) {
  // type OTHER, tile dims {2,1} packed, devices {1,0} packed, last_tile_dims {MANUAL} packed.
  const std::string bytes("\x08\x03\x1a\x02\x02\x01\x22\x02\x01\x00\x42\x01\x04", 13);
  auto parsed = ParseOpSharding(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT(parsed->tile_dims, ElementsAre(2, 1));
  EXPECT_THAT(parsed->tile_devices, ElementsAre(1, 0));
  EXPECT_THAT(parsed->last_tile_dims, ElementsAre(OpSharding::Type::kManual));
}

TEST(OpShardingCodec, RefusesWhatItDoesNotKnow) {
  EXPECT_EQ(ParseOpSharding("\x08\x63").status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(ParseOpSharding("\x72\x01\x0a").status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(ParseOpSharding("\xff\xff").status().code(), absl::StatusCode::kInvalidArgument);
  // A tile dimension of zero.
  EXPECT_EQ(ParseOpSharding(std::string("\x08\x03\x1a\x01\x00", 5)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ShardingCodec, HloRoundTrip) {
  auto made = Sharding::Hlo(Ids({3, 2, 1, 0}), "", Tiled());
  ASSERT_TRUE(made.ok()) << made.status();
  auto parsed = ParseSharding(SerializeSharding(**made, "device"));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ((*parsed)->kind(), Sharding::Kind::kHlo);
  EXPECT_EQ((*parsed)->devices(), Ids({3, 2, 1, 0}));
  EXPECT_EQ((*parsed)->memory_kind(), "device");
  EXPECT_THAT(*(*parsed)->ShardShape({4, 6}, 0), ElementsAre(2, 6));
}

TEST(ShardingCodec, OtherKindsRoundTrip) {
  auto single = ParseSharding(
      SerializeSharding(*Sharding::SingleDevice(DeviceId(5), "pinned_host"), "device"));
  ASSERT_TRUE(single.ok());
  EXPECT_EQ((*single)->kind(), Sharding::Kind::kSingleDevice);
  EXPECT_EQ((*single)->memory_kind(), "pinned_host");
  EXPECT_EQ((*single)->devices(), Ids({5}));

  auto even = ParseSharding(SerializeSharding(
      *Sharding::ConcreteEven(Ids({0, 1}), "", Shape{4}, Shape{2}, false), "device"));
  ASSERT_TRUE(even.ok());
  EXPECT_EQ((*even)->kind(), Sharding::Kind::kConcreteEven);
  EXPECT_THAT((*even)->shard_shape(), ElementsAre(2));
  EXPECT_THAT((*even)->global_shape(), ElementsAre(4));
  EXPECT_FALSE((*even)->fully_replicated());

  auto concrete = ParseSharding(SerializeSharding(
      *Sharding::Concrete(Ids({0, 1}), "", Shape{3}, {Shape{2}, Shape{1}}), "device"));
  ASSERT_TRUE(concrete.ok());
  EXPECT_THAT((*concrete)->shard_shapes(), ElementsAre(Shape{2}, Shape{1}));

  auto opaque = ParseSharding(SerializeSharding(*Sharding::Opaque(Ids({1}), ""), "device"));
  ASSERT_TRUE(opaque.ok());
  EXPECT_EQ((*opaque)->kind(), Sharding::Kind::kOpaque);
}

TEST(ShardingCodec, RefusalsNameTheReason) {
  ifrt::ShardingProto proto;
  proto.mutable_serialized_sharding()->set_type_name("xla::ifrt::ShardingParamSharding");
  auto status = ParseSharding(proto.SerializeAsString()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("ShardingParamSharding"));

  ifrt::HloShardingProto hlo;  // no devices
  proto.mutable_serialized_sharding()->set_type_name("xla::ifrt::HloSharding");
  proto.mutable_serialized_sharding()->set_data(hlo.SerializeAsString());
  EXPECT_EQ(ParseSharding(proto.SerializeAsString()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ShardingCache, ReturnsTheSameObjectAndStaysBounded) {
  ShardingCache cache(2);
  const std::string a = SerializeSharding(*Sharding::SingleDevice(DeviceId(1), ""), "device");
  auto first = cache.Parse(a);
  auto second = cache.Parse(a);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->get(), second->get());
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(
        cache.Parse(SerializeSharding(*Sharding::SingleDevice(DeviceId(i), ""), "device")).ok());
    EXPECT_LE(cache.size(), 2u);
  }
  EXPECT_FALSE(cache.Parse("\xff").ok());
}

TEST(Values, DTypesAndLayouts) {
  EXPECT_EQ(*ParseDType(11), model::DType::kF32);
  EXPECT_EQ(ParseDType(77).status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(RowMajorLayoutText(0), "{}");
  EXPECT_EQ(RowMajorLayoutText(3), "{2,1,0}");

  ifrt::CompactLayoutProto compact;
  compact.add_major_to_minor(1);
  compact.add_major_to_minor(0);
  ifrt::LayoutProto outer;
  outer.mutable_serialized_layout()->set_type_name("xla::ifrt::CompactLayout");
  outer.mutable_serialized_layout()->set_data(compact.SerializeAsString());
  EXPECT_EQ(*ParseLayout(outer.SerializeAsString()), "{0,1}");

  ifrt::PjRtLayoutProto pjrt;
  pjrt.mutable_xla_layout()->add_minor_to_major(1);
  pjrt.mutable_xla_layout()->add_minor_to_major(0);
  auto* tile = pjrt.mutable_xla_layout()->add_tiles();
  tile->add_dimensions(8);
  tile->add_dimensions(128);
  outer.mutable_serialized_layout()->set_type_name("xla::ifrt::PjRtLayout");
  outer.mutable_serialized_layout()->set_data(pjrt.SerializeAsString());
  EXPECT_EQ(*ParseLayout(outer.SerializeAsString()), "{1,0:T(8,128)}");
  EXPECT_EQ(*ParseLayout(""), "");
}

ifrt::XlaCompileOptionsProto Options(std::initializer_list<int> devices) {
  ifrt::XlaCompileOptionsProto proto;
  auto* build = proto.mutable_compile_options()->mutable_executable_build_options();
  build->set_num_replicas(1);
  build->set_num_partitions(static_cast<int64_t>(devices.size()));
  auto* assignment = build->mutable_device_assignment();
  assignment->set_replica_count(1);
  assignment->set_computation_count(static_cast<int>(devices.size()));
  for (int id : devices) assignment->add_computation_devices()->add_replica_device_ids(id);
  return proto;
}

TEST(CompileOptionsCodec, TakesTheDevicesOutAndKeepsTheRest) {
  auto proto = Options({3, 1});
  // A field that our proto does not declare must survive (alias_passthrough_params = 10).
  const std::string unknown("\x50\x01", 2);
  auto* build = proto.mutable_compile_options()->mutable_executable_build_options();
  std::string raw = build->SerializeAsString() + unknown;
  ASSERT_TRUE(build->ParseFromString(raw));
  auto parsed = ParseXlaCompileOptions(proto.SerializeAsString());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->devices, Ids({3, 1}));
  EXPECT_EQ(parsed->num_partitions, 2);
  ifrt::CompileOptionsProto rest;
  ASSERT_TRUE(rest.ParseFromString(parsed->options));
  EXPECT_FALSE(rest.executable_build_options().has_device_assignment());
  EXPECT_THAT(rest.executable_build_options().SerializeAsString(), HasSubstr(unknown));

  auto elsewhere = ParseXlaCompileOptions(Options({0, 2}).SerializeAsString());
  auto here = ParseXlaCompileOptions(Options({3, 1}).SerializeAsString());
  EXPECT_EQ(elsewhere->options, here->options);
}

TEST(CompileOptionsCodec, FlattensReplicaMajor) {
  ifrt::XlaCompileOptionsProto proto;
  auto* assignment = proto.mutable_compile_options()
                         ->mutable_executable_build_options()
                         ->mutable_device_assignment();
  assignment->set_replica_count(2);
  assignment->set_computation_count(2);
  for (int c = 0; c < 2; ++c) {
    auto* column = assignment->add_computation_devices();
    column->add_replica_device_ids(c);
    column->add_replica_device_ids(10 + c);
  }
  auto parsed = ParseXlaCompileOptions(proto.SerializeAsString());
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->devices, Ids({0, 1, 10, 11}));
  assignment->mutable_computation_devices(0)->add_replica_device_ids(7);
  EXPECT_EQ(ParseXlaCompileOptions(proto.SerializeAsString()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CompileOptionsCodec, SameOptionsSameBytesWhateverTheMapOrder) {
  ifrt::XlaCompileOptionsProto a, b;
  auto set = [](ifrt::XlaCompileOptionsProto* proto, int i) {
    auto& overrides = *proto->mutable_compile_options()->mutable_env_option_overrides();
    overrides[std::to_string(i)] = "\x10\x01";
  };
  for (int i = 0; i < 40; ++i) set(&a, i);
  for (int i = 40; i-- > 0;) set(&b, i);
  EXPECT_EQ(ParseXlaCompileOptions(a.SerializeAsString())->options,
            ParseXlaCompileOptions(b.SerializeAsString())->options);
}

TEST(Programs, PluginAndCustomCall) {
  EXPECT_EQ(*ParsePluginProgram("__serialized_plugin_program {\"a\":1}"), "{\"a\":1}");
  auto bad = ParsePluginProgram("{}").status();
  EXPECT_THAT(std::string(bad.message()), HasSubstr("Bad PluginProgram"));

  ifrt::CustomCallProgramProto proto;
  proto.set_type("jax_colocated_python_v0.0.1");
  proto.set_name("f");
  proto.set_serialized_program_text("pickle");
  proto.mutable_devices()->add_device_ids(2);
  auto* spec = proto.add_input_specs();
  spec->mutable_dtype()->set_kind(11);
  spec->mutable_shape()->add_dims(3);
  spec->set_sharding(SerializeSharding(*Sharding::SingleDevice(DeviceId(2), ""), "device"));
  auto parsed = ParseCustomCallProgram(proto.SerializeAsString());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->text, "pickle");
  EXPECT_EQ(parsed->devices, Ids({2}));
  ASSERT_EQ(parsed->input_specs.size(), 1u);
  EXPECT_THAT(parsed->input_specs[0].shape, ElementsAre(3));
}

TEST(StatusCodec, RoundTripsWithPayload) {
  absl::Status status = absl::DataLossError("slice 1 is gone");
  EXPECT_TRUE(AttachUserContext(42, &status));
  EXPECT_FALSE(AttachUserContext(43, &status));
  ifrt::StatusProto proto;
  StatusToProto(status, &proto);
  EXPECT_EQ(proto.payload().at("type.googleapis.com/ifrt.UserContext"), "42");
  const absl::Status back = StatusFromProto(proto);
  EXPECT_EQ(back, status);
  EXPECT_EQ(UserContextOf(back), 42u);
  absl::Status ok;
  EXPECT_FALSE(AttachUserContext(1, &ok));
  proto.set_code(99);
  EXPECT_EQ(StatusFromProto(proto).code(), absl::StatusCode::kUnknown);
}

}  // namespace
}  // namespace causeway::wire
