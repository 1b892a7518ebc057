// Plugin programs: what pathwaysutils asks of a backend beyond XLA, as JSON.
//
// Source of the keys: pathwaysutils 0.1.13 (persistence/helper.py, experimental/reshard.py,
// profiling.py). Errors: INVALID_ARGUMENT beginning with "Bad PluginProgram", which it looks for.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "causeway/model/dtype.h"
#include "causeway/model/sharding.h"

namespace causeway::wire {

// Arguments to other shardings, one to one.
struct ReshardProgram {
  bool donate = false;
  std::vector<model::ShardingRef> inputs, outputs;
};

// Arrays to or from folders that all workers reach.
struct FileProgram {
  struct Item {
    std::string location;
    std::string name;
    model::DType dtype = model::DType::kInvalid;  // reads only; a write takes its argument's
    model::Shape shape;
    model::ShardingRef sharding;
    double timeout_seconds = 0;
  };
  bool write = false;
  std::vector<Item> items;
};

// Its first execution starts a trace of the workers, its second one ends it and writes the files.
struct ProfileProgram {
  std::string directory;
  std::string session;  // "" = the time of the start
  int max_hosts = 1;
  double max_seconds = 0;  // 0 = until the second execution
  int host_trace_level = -1;  // -1 = the default
  bool python_tracer = false;
  bool has_output = false;  // one array of text on the client's default device
};

using PluginProgram = std::variant<ReshardProgram, FileProgram, ProfileProgram>;
absl::StatusOr<PluginProgram> ParsePluginRequest(absl::string_view json);

// A file program as workers get it, as JSON: {"op": "read"|"write", "items": [{"location", "name",
// "dtype", "shape", "timeout", "chunk", "shards": {device: {"start", "dims", "first"}}}]}. "first" marks
// the one replica of each part that writes it.
absl::StatusOr<std::string> EncodeFilePlan(const FileProgram& program);
// {"op": "profile", "directory", "session", "max_seconds", "host_trace_level", "python_tracer"}
std::string EncodeProfilePlan(const ProfileProgram& program);

}  // namespace causeway::wire
