// JSON by protobuf's own reader and writer.
#include "causeway/wire/plugin_program.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"
#include "causeway/wire/ifrt_sharding.h"

namespace causeway::wire {
namespace {

using google::protobuf::ListValue;
using google::protobuf::Struct;
using google::protobuf::Value;

absl::Status Bad(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("Bad PluginProgram: ", what));
}

const Value* Find(const Struct& from, const std::string& key) {
  const auto it = from.fields().find(key);
  return it == from.fields().end() ? nullptr : &it->second;
}

const Struct& Object(const Struct& from, const std::string& key) {
  const Value* value = Find(from, key);
  return value == nullptr ? Struct::default_instance() : value->struct_value();
}

const ListValue& List(const Struct& from, const std::string& key) {
  const Value* value = Find(from, key);
  return value == nullptr ? ListValue::default_instance() : value->list_value();
}

double Number(const Struct& from, const std::string& key, double otherwise = 0) {
  const Value* value = Find(from, key);
  if (value == nullptr) return otherwise;
  // Protobuf's own JSON writes 64-bit numbers as text.
  double parsed = 0;
  if (value->kind_case() == Value::kStringValue) {
    return absl::SimpleAtod(value->string_value(), &parsed) ? parsed : otherwise;
  }
  return value->number_value();
}

std::string Text(const Struct& from, const std::string& key) {
  const Value* value = Find(from, key);
  return value == nullptr ? std::string() : value->string_value();
}

bool Truth(const Struct& from, const std::string& key) {
  const Value* value = Find(from, key);
  return value != nullptr && value->bool_value();
}

absl::StatusOr<std::string> Unbase64(const Struct& from, const std::string& key) {
  std::string out;
  if (!absl::Base64Unescape(Text(from, key), &out)) return Bad(absl::StrCat(key, " is no base64"));
  return out;
}

// `sharding` in base64; empty = replicated.
absl::StatusOr<model::ShardingRef> ParseSharding(const Struct& from, const std::string& key) {
  std::vector<DeviceId> devices;
  for (const Value& id : List(Object(from, "devices"), "device_ids").values()) {
    devices.emplace_back(static_cast<int32_t>(id.number_value()));
  }
  if (devices.empty()) return Bad("it names no devices");
  ASSIGN_OR_RETURN(std::string bytes, Unbase64(from, key));
  model::OpSharding op;
  if (!bytes.empty()) {
    ASSIGN_OR_RETURN(op, ParseOpSharding(bytes));
  }
  return model::Sharding::Hlo(std::move(devices), Text(from, "memory_kind"), std::move(op));
}

model::Shape ParseDims(const ListValue& list) {
  model::Shape shape;
  for (const Value& dim : list.values()) shape.push_back(static_cast<int64_t>(dim.number_value()));
  return shape;
}

// XLA's names of element types ("F32"), as far as pathwaysutils uses them.
absl::StatusOr<model::DType> ParsePrimitiveType(const std::string& name) {
  std::string numpy;
  if (name == "PRED") numpy = "bool";
  if (name == "BF16") numpy = "bfloat16";
  if (numpy.empty() && name.size() >= 2) {
    const char* kind = name[0] == 'F'   ? "float"
                       : name[0] == 'S' ? "int"
                       : name[0] == 'U' ? "uint"
                                        : nullptr;
    if (kind != nullptr) numpy = absl::StrCat(kind, name.substr(1));
    // NumPy counts both halves of a complex number, and so does XLA: C64 is complex64.
    if (name[0] == 'C') numpy = absl::StrCat("complex", name.substr(1));
    if (absl::StartsWith(name, "F8")) {
      numpy = absl::StrCat("float8_", absl::AsciiStrToLower(name.substr(2)));
    }
  }
  absl::StatusOr<model::DType> dtype = model::DTypeFromName(numpy);
  if (!dtype.ok()) return Bad(absl::StrCat("unknown element type ", name));
  return dtype;
}

absl::StatusOr<FileProgram::Item> ParseItem(const Struct& from, bool write) {
  FileProgram::Item item;
  ASSIGN_OR_RETURN(item.location, Unbase64(from, "b64_location"));
  ASSIGN_OR_RETURN(item.name, Unbase64(from, "b64_name"));
  if (item.location.empty() || item.name.empty()) return Bad("an array without a place or a name");
  ASSIGN_OR_RETURN(item.sharding, ParseSharding(from, "b64_hlo_sharding_string"));
  if (write) {
    item.shape = ParseDims(List(from, "shape"));
  } else {
    const Struct& shape = Object(from, "shape");
    item.shape = ParseDims(List(shape, "dimensions"));
    ASSIGN_OR_RETURN(item.dtype, ParsePrimitiveType(Text(shape, "xla_primitive_type_str")));
  }
  if (std::any_of(item.shape.begin(), item.shape.end(), [](int64_t d) { return d < 0; })) {
    return Bad("an array with a negative dimension");
  }
  const Struct& timeout = Object(from, "timeout");
  item.timeout_seconds = Number(timeout, "seconds") + Number(timeout, "nanos") * 1e-9;
  return item;
}

absl::StatusOr<PluginProgram> ParseFiles(const ListValue& requests, bool write) {
  FileProgram program;
  program.write = write;
  for (const Value& request : requests.values()) {
    ASSIGN_OR_RETURN(FileProgram::Item item, ParseItem(request.struct_value(), write));
    program.items.push_back(std::move(item));
  }
  if (program.items.empty()) return Bad("it names no arrays");
  return PluginProgram(std::move(program));
}

absl::StatusOr<PluginProgram> ParseReshard(const Struct& request) {
  ReshardProgram program;
  program.donate = Truth(request, "donateInput");
  for (const Value& value : List(request, "inSharding").values()) {
    ASSIGN_OR_RETURN(model::ShardingRef one,
                     ParseSharding(value.struct_value(), "xla_hlo_sharding"));
    program.inputs.push_back(std::move(one));
  }
  for (const Value& value : List(request, "outSharding").values()) {
    ASSIGN_OR_RETURN(model::ShardingRef one,
                     ParseSharding(value.struct_value(), "xla_hlo_sharding"));
    program.outputs.push_back(std::move(one));
  }
  if (program.inputs.empty() || program.inputs.size() != program.outputs.size()) {
    return Bad("a reshard needs as many outputs as inputs, and one at least");
  }
  return PluginProgram(std::move(program));
}

PluginProgram ParseProfile(const Struct& request) {
  ProfileProgram program;
  program.directory = Text(request, "traceLocation");
  program.max_hosts = std::max(1, static_cast<int>(Number(request, "maxNumHosts", 1)));
  program.max_seconds = Number(request, "maxDurationSecs");
  if (Find(request, "xprofTraceOptions") != nullptr) {
    const Struct& options = Object(request, "xprofTraceOptions");
    program.has_output = true;
    program.session = Text(options, "traceSessionName");
    if (std::string directory = Text(options, "traceDirectory"); !directory.empty()) {
      program.directory = std::move(directory);
    }
    program.host_trace_level = static_cast<int>(Number(options, "hostTraceLevel", -1));
    program.python_tracer = Truth(Object(options, "pwTraceOptions"), "enablePythonTracer");
  }
  return program;
}

std::string ToJson(const Struct& object) {
  std::string out;
  (void)google::protobuf::util::MessageToJsonString(object, &out);
  return out;
}

void Put(const std::vector<int64_t>& values, Value* out) {
  ListValue* list = out->mutable_list_value();
  for (const int64_t v : values) list->add_values()->set_number_value(static_cast<double>(v));
}

}  // namespace

absl::StatusOr<PluginProgram> ParsePluginRequest(absl::string_view json) {
  Struct root;
  if (!google::protobuf::util::JsonStringToMessage(std::string(json), &root).ok()) {
    return Bad("it is no JSON object");
  }
  if (Find(root, "reshardRequest") != nullptr) return ParseReshard(Object(root, "reshardRequest"));
  if (Find(root, "profileRequest") != nullptr) return ParseProfile(Object(root, "profileRequest"));
  if (Find(root, "bulk_persistence_write_request") != nullptr) {
    return ParseFiles(List(Object(root, "bulk_persistence_write_request"), "write_requests"), true);
  }
  if (Find(root, "bulk_persistence_read_request") != nullptr) {
    return ParseFiles(List(Object(root, "bulk_persistence_read_request"), "read_requests"), false);
  }
  std::string keys;
  for (const auto& [key, value] : root.fields()) absl::StrAppend(&keys, " ", key);
  return Bad(absl::StrCat("unknown request", keys, "; reshardRequest, profileRequest, "
                          "bulk_persistence_write_request and bulk_persistence_read_request are "
                          "known"));
}

absl::StatusOr<std::string> EncodeFilePlan(const FileProgram& program) {
  Struct root;
  auto& fields = *root.mutable_fields();
  fields["op"].set_string_value(program.write ? "write" : "read");
  ListValue* items = fields["items"].mutable_list_value();
  for (const FileProgram::Item& item : program.items) {
    auto& out = *items->add_values()->mutable_struct_value()->mutable_fields();
    out["location"].set_string_value(item.location);
    out["name"].set_string_value(item.name);
    out["dtype"].set_number_value(static_cast<int>(item.dtype));
    out["timeout"].set_number_value(item.timeout_seconds);
    Put(item.shape, &out["shape"]);
    auto& shards = *out["shards"].mutable_struct_value()->mutable_fields();
    std::set<std::vector<int64_t>> seen;
    for (int i = 0; i < item.sharding->num_shards(); ++i) {
      ASSIGN_OR_RETURN(model::Box box, item.sharding->ShardBox(item.shape, i));
      if (i == 0) Put(box.shape(), &out["chunk"]);
      const std::string device = absl::StrCat(item.sharding->devices()[i].value());
      auto& shard = *shards[device].mutable_struct_value()->mutable_fields();
      Put(box.start, &shard["start"]);
      Put(box.shape(), &shard["dims"]);
      shard["first"].set_bool_value(!box.empty() && seen.insert(box.start).second);
    }
  }
  return ToJson(root);
}

std::string EncodeProfilePlan(const ProfileProgram& program) {
  Struct root;
  auto& fields = *root.mutable_fields();
  fields["op"].set_string_value("profile");
  fields["directory"].set_string_value(program.directory);
  fields["session"].set_string_value(program.session);
  fields["max_seconds"].set_number_value(program.max_seconds);
  fields["host_trace_level"].set_number_value(program.host_trace_level);
  fields["python_tracer"].set_bool_value(program.python_tracer);
  fields["has_output"].set_bool_value(program.has_output);
  return ToJson(root);
}

}  // namespace causeway::wire
