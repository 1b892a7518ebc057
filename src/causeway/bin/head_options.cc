// Flags of the head and their checks.
#include "causeway/bin/head_options.h"

#include <unistd.h>

#include <algorithm>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "causeway/base/limits.h"
#include "causeway/base/status_macros.h"
#include "causeway/proxy/version.h"

ABSL_FLAG(std::string, host, "127.0.0.1",
          "Address to listen on. The protocols have no passwords: leave it at the loopback address "
          "unless the network is private.");
ABSL_FLAG(std::string, advertised_host, "",
          "Host name or address by which workers reach the head; empty = --host, or this machine's "
          "name when --host means every address.");
ABSL_FLAG(int, proxy_port, 29000, "Port for JAX clients; 0 = any free one.");
ABSL_FLAG(int, server_port, 29001, "Port for workers; 0 = any free one.");
ABSL_FLAG(int, ops_port, 29002, "Port for operations over HTTP; 0 = any free one.");
ABSL_FLAG(int, coordinator_port, 0,
          "Port where the workers' XLA clients find each other; 0 = any free one.");
ABSL_FLAG(int, slices, 1, "Slices of the cluster.");
ABSL_FLAG(int, instance_count, 0, "Another name of --slices.");
ABSL_FLAG(int, hosts_per_slice, 1, "Workers a slice.");
ABSL_FLAG(int, devices_per_host, 1, "Devices a worker.");
ABSL_FLAG(std::string, platform, "cpu", "What the workers run: cpu, cuda, rocm, tpu.");
ABSL_FLAG(std::string, announce_slices, "auto",
          "Whether devices tell their slice_index: true, false, or auto (when there are several).");
ABSL_FLAG(int, incarnations_per_worker, 0,
          "Node ids a worker may use up, one for each restart and each failure in the cluster; 0 = "
          "by the cluster's size.");
ABSL_FLAG(absl::Duration, heartbeat, absl::Seconds(5),
          "How often a worker is asked whether it lives. One that answers none of three questions is "
          "lost: three beats after the first, or sooner where answers use to come at once.");
ABSL_FLAG(absl::Duration, drain_max, absl::Seconds(10),
          "How long a worker's launches may take to end when their epoch is over; one that takes "
          "longer is given up and started anew.");
ABSL_FLAG(std::string, ready_file, "", "Written as JSON with the real ports once serving.");
ABSL_FLAG(std::string, compile_cache, "",
          "Directory where compiled programs stay for later heads; empty = none.");
ABSL_FLAG(int64_t, compile_cache_bytes, int64_t{4} << 30, "At most so many bytes in it.");
ABSL_FLAG(int64_t, program_memory_bytes, int64_t{2} << 30,
          "How many bytes of compiled programs stay in memory for the next session that compiles the "
          "same; programs that a session holds are kept in any case.");
ABSL_FLAG(bool, transfer_checksums, false, "Whether transfers of arrays bear checksums (xxHash).");
ABSL_FLAG(std::string, shared_dir, "",
          "Directory for large uploads of clients on this machine; empty = none.");
ABSL_FLAG(int, ifrt_protocol_max, 0,
          "Newest protocol version to agree on with JAX clients; 0 = the newest there is.");

namespace causeway {
namespace {

absl::Status CheckRange(const char* flag, int value, int low, int high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", value, ": it must be ", low, " to ", high));
}

std::string MachineName() {
  char name[256] = "";
  if (::gethostname(name, sizeof(name) - 1) != 0) return "localhost";
  return name;
}

// Every id costs each worker a little when it joins, so large clusters get fewer.
int DefaultIncarnations(int workers) {
  return std::clamp(limits::kDefaultNodes / std::max(workers, 1), limits::kIncarnationsPerWorker,
                    limits::kIncarnationsPerWorkerMax);
}

absl::StatusOr<model::ClusterShape> Shape() {
  model::ClusterShape shape;
  shape.slices = absl::GetFlag(FLAGS_slices);
  if (absl::GetFlag(FLAGS_instance_count) != 0) shape.slices = absl::GetFlag(FLAGS_instance_count);
  shape.hosts_per_slice = absl::GetFlag(FLAGS_hosts_per_slice);
  shape.devices_per_host = absl::GetFlag(FLAGS_devices_per_host);
  shape.platform = absl::GetFlag(FLAGS_platform);
  RETURN_IF_ERROR(CheckRange("slices", shape.slices, 1, limits::kSlicesMax));
  RETURN_IF_ERROR(
      CheckRange("hosts-per-slice", shape.hosts_per_slice, 1, limits::kHostsPerSliceMax));
  RETURN_IF_ERROR(
      CheckRange("devices-per-host", shape.devices_per_host, 1, limits::kDevicesPerNodeMax));
  RETURN_IF_ERROR(CheckRange("slices times --hosts-per-slice", shape.num_workers(), 1,
                             limits::kWorkersMax));
  if (shape.platform.empty()) {
    return absl::InvalidArgumentError("--platform is empty: name one, such as cpu or cuda");
  }
  const std::string announce = absl::GetFlag(FLAGS_announce_slices);
  if (announce != "auto" && announce != "true" && announce != "false") {
    return absl::InvalidArgumentError(
        absl::StrCat("--announce-slices=", announce, ": it must be auto, true or false"));
  }
  shape.announce_slices = announce == "true" || (announce == "auto" && shape.slices > 1);
  return shape;
}

}  // namespace

absl::StatusOr<HeadOptions> ParseHeadOptions(int argc, char** argv) {
  absl::SetProgramUsageMessage("The head of a Causeway cluster: causewayd [--slices=2] ...");
  std::vector<std::string> spelled(argv, argv + argc);
  std::vector<char*> args;
  for (std::string& arg : spelled) {
    if (arg.rfind("--", 0) == 0) {
      const size_t end = std::min(arg.find('='), arg.size());
      std::replace(arg.begin() + 2, arg.begin() + static_cast<std::ptrdiff_t>(end), '-', '_');
    }
    args.push_back(arg.data());
  }
  const std::vector<char*> rest =
      absl::ParseCommandLine(static_cast<int>(args.size()), args.data());
  if (rest.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("what is ", rest[1], "? The head takes flags only; see --help"));
  }

  HeadOptions options;
  ASSIGN_OR_RETURN(options.shape, Shape());
  options.host = absl::GetFlag(FLAGS_host);
  options.advertised_host = absl::GetFlag(FLAGS_advertised_host);
  if (options.advertised_host.empty()) {
    const bool any = options.host == "0.0.0.0" || options.host == "::" || options.host == "[::]";
    options.advertised_host = any ? MachineName() : options.host;
  }
  options.proxy_port = absl::GetFlag(FLAGS_proxy_port);
  options.server_port = absl::GetFlag(FLAGS_server_port);
  options.ops_port = absl::GetFlag(FLAGS_ops_port);
  options.coordinator_port = absl::GetFlag(FLAGS_coordinator_port);
  RETURN_IF_ERROR(CheckRange("proxy-port", options.proxy_port, 0, 65535));
  RETURN_IF_ERROR(CheckRange("server-port", options.server_port, 0, 65535));
  RETURN_IF_ERROR(CheckRange("ops-port", options.ops_port, 0, 65535));
  RETURN_IF_ERROR(CheckRange("coordinator-port", options.coordinator_port, 0, 65535));
  options.incarnations_per_worker = absl::GetFlag(FLAGS_incarnations_per_worker);
  RETURN_IF_ERROR(CheckRange("incarnations-per-worker", options.incarnations_per_worker, 0,
                             limits::kIncarnationsPerWorkerMax));
  if (options.incarnations_per_worker == 0) {
    options.incarnations_per_worker = DefaultIncarnations(options.shape.num_workers());
  }
  options.heartbeat = absl::GetFlag(FLAGS_heartbeat);
  if (options.heartbeat < absl::Milliseconds(10) || options.heartbeat > absl::Hours(1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--heartbeat=", absl::FormatDuration(options.heartbeat),
                     ": it must be 10ms to 1h"));
  }
  options.drain_max = absl::GetFlag(FLAGS_drain_max);
  if (options.drain_max < absl::Milliseconds(10) || options.drain_max > absl::Hours(1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--drain-max=", absl::FormatDuration(options.drain_max),
                     ": it must be 10ms to 1h"));
  }
  options.ready_file = absl::GetFlag(FLAGS_ready_file);
  options.compile_cache = absl::GetFlag(FLAGS_compile_cache);
  options.compile_cache_bytes = absl::GetFlag(FLAGS_compile_cache_bytes);
  options.program_memory_bytes = absl::GetFlag(FLAGS_program_memory_bytes);
  if (options.program_memory_bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--program-memory-bytes=", options.program_memory_bytes,
                     ": it must not be negative; 0 keeps no program that nobody holds"));
  }
  if (options.compile_cache_bytes < (1 << 20)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--compile-cache-bytes=", options.compile_cache_bytes,
                     ": it must be 1048576 or more; without --compile-cache nothing is kept"));
  }
  options.transfer_checksums = absl::GetFlag(FLAGS_transfer_checksums);
  options.shared_dir = absl::GetFlag(FLAGS_shared_dir);
  options.ifrt_protocol_max = absl::GetFlag(FLAGS_ifrt_protocol_max);
  if (options.ifrt_protocol_max != 0) {
    RETURN_IF_ERROR(CheckRange("ifrt-protocol-max", options.ifrt_protocol_max,
                               proxy::kMinVersion.protocol, proxy::kMaxVersion.protocol));
  }
  return options;
}

}  // namespace causeway
