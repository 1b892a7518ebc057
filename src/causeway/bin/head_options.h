// What the head is told on its command line.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "causeway/model/topology.h"

namespace causeway {

struct HeadOptions {
  model::ClusterShape shape;
  std::string host = "127.0.0.1";
  // The host part of the addresses that workers are told.
  std::string advertised_host = "127.0.0.1";
  int proxy_port = 29000;
  int server_port = 29001;
  int ops_port = 29002;
  int coordinator_port = 0;
  int incarnations_per_worker = 64;
  absl::Duration heartbeat = absl::Seconds(5);
  absl::Duration drain_max = absl::Seconds(10);
  std::string ready_file;
  std::string compile_cache;
  int64_t compile_cache_bytes = int64_t{4} << 30;
  int64_t program_memory_bytes = int64_t{2} << 30;
  bool transfer_checksums = false;
  std::string shared_dir;
  int ifrt_protocol_max = 0;  // 0 = the newest
};

// Parses and checks; INVALID_ARGUMENT names the flag and what it takes. Flags may be spelled with
// dashes or underscores. Prints help or the version and exits when asked for.
absl::StatusOr<HeadOptions> ParseHeadOptions(int argc, char** argv);

}  // namespace causeway
