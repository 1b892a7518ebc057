// Element types, layout texts, options and programs of the IFRT wire as plain values.
//
// Errors: INVALID_ARGUMENT for malformed bytes, UNIMPLEMENTED for types that are not known.
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "causeway/base/strong_id.h"
#include "causeway/model/dtype.h"
#include "causeway/model/sharding.h"

namespace causeway::wire {

// The number in a DTypeProto.
absl::StatusOr<model::DType> ParseDType(int32_t kind);

// Layout texts name dimensions from minor to major: "{1,0}" is row-major.
std::string LayoutText(absl::Span<const int64_t> minor_to_major);
std::string RowMajorLayoutText(size_t rank);
// A serialized xla.ifrt.LayoutProto as text; "" for no bytes, which means the default layout.
absl::StatusOr<std::string> ParseLayout(absl::string_view bytes);

// What the front end needs to know of XLA's compile options; the rest stays opaque.
struct CompileOptions {
  std::vector<DeviceId> devices;  // execution order; empty: the client left the choice open
  int64_t num_replicas = 1;
  int64_t num_partitions = 1;
  int64_t device_ordinal = -1;  // counts where `devices` is empty; -1 = open
  bool portable = false;
  // xla.CompileOptionsProto without its device assignment, the same bytes for equal options.
  std::string options;
};
// The payload of an XlaCompileOptions object.
absl::StatusOr<CompileOptions> ParseXlaCompileOptions(absl::string_view bytes);

// The text behind a PluginProgram's prefix.
absl::StatusOr<std::string> ParsePluginProgram(absl::string_view bytes);

struct ProgramSpec {
  model::DType dtype = model::DType::kInvalid;
  model::Shape shape;
  model::ShardingRef sharding;
  std::string layout;
};
struct CustomCallProgram {
  std::string type;
  std::string name;
  std::string text;
  std::vector<DeviceId> devices;
  std::vector<ProgramSpec> input_specs;
  std::vector<ProgramSpec> output_specs;
};
absl::StatusOr<CustomCallProgram> ParseCustomCallProgram(absl::string_view bytes);

}  // namespace causeway::wire
