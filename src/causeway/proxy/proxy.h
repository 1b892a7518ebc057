// The front end for stock JAX clients: serves the IFRT proxy protocol on top of a core::Runtime.
//
//   Proxy proxy(runtime, options);
//   grpc::ServerBuilder builder;
//   builder.AddListeningPort("127.0.0.1:29000", grpc::InsecureServerCredentials());
//   proxy.Register(builder);
//   auto server = builder.BuildAndStart();
//   ...
//   proxy.Shutdown(deadline);   // ends every session
//   server->Shutdown(deadline);
//
// One client stream is one session. A session's requests are started in stream order on gRPC's
// threads; nothing here blocks, so there is no thread a stream. When a stream ends in any way, its
// session is closed in the runtime and its buffers are dropped.
// Thread safety: all methods may be called from any thread. The runtime must outlive the proxy and
// every callback that it still owes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "causeway/base/limits.h"
#include "causeway/core/runtime.h"
#include "causeway/proxy/version.h"

namespace grpc {
class ServerBuilder;
}  // namespace grpc

namespace causeway::proxy {

// What a client says about itself when it opens a session.
struct Hello {
  std::string peer;                         // gRPC's address text
  std::map<std::string, std::string> data;  // the client's initialization_data; numbers as text
};

struct Options {
  using Attribute = std::variant<std::string, int64_t, bool>;
  // Readable in Python as attributes of the client, beside those that JAX needs.
  std::map<std::string, Attribute> client_attributes;
  // Clients see "proxy/" + this; "pathways" is what checkpoint libraries look for.
  std::string runtime_type = "pathways";
  // A directory that clients on the same host may use for large uploads; "" = not offered. The
  // files in it are mapped, so its users must be trusted not to truncate them.
  std::string large_transfer_directory;

  // Limits, a session each.
  int64_t max_bytes_per_session = limits::kSessionBytesMax;      // stored or being uploaded
  int64_t max_buffers_per_session = limits::kSessionBuffersMax;  // same; waiting claims too
  // Beyond these, reading from the client stops until there is less.
  int64_t max_queued_replies = limits::kSessionRepliesMax;
  int64_t max_open_calls = limits::kSessionOpenCallsMax;
  int64_t max_bytes_in_flight = limits::kSessionBytesInFlight;
  // Limits of the process.
  int max_message_bytes = limits::kMessageBytesMax;  // one request, such as a program
  int max_concurrent_streams = limits::kStreamsMax;
  int max_sessions = limits::kSessionsMax;

  // The newest protocol to agree on: an older server, for tests and for trouble with a new client.
  int32_t max_protocol = kMaxVersion.protocol;

  // Decides whether a session may open; empty admits all. The status goes to the client as is.
  std::function<absl::Status(const Hello&)> admit;
};

// Counters since the start, but for sessions_open.
struct Stats {
  std::map<std::string, uint64_t> requests;  // by kind, e.g. "loaded_executable_execute"
  uint64_t failed_requests = 0;
  uint64_t sessions_opened = 0;
  uint64_t sessions_open = 0;
  uint64_t stores = 0;
  uint64_t store_bytes = 0;
  uint64_t lookups = 0;
  uint64_t lookup_bytes = 0;
  uint64_t disk_reads = 0;  // uploads by file in shared memory
  uint64_t disk_read_bytes = 0;
};

class Proxy {
 public:
  Proxy(core::Runtime& runtime, Options options);
  // The gRPC server must be shut down before.
  ~Proxy();
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  // Adds the service, and the channel settings it needs, to a server under construction.
  void Register(grpc::ServerBuilder& builder);

  Stats GetStats() const;

  // Refuses new sessions and ends those that are open with UNAVAILABLE. DEADLINE_EXCEEDED when
  // some streams are not gone by `deadline`.
  absl::Status Shutdown(absl::Time deadline);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace causeway::proxy
