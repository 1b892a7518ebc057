// The operations HTTP server of the head.
//
//   GET /health    200 while the process serves
//   GET /ready     200 when every worker is in the current epoch, else 503 with who is missing
//   GET /status    JSON: shape, epoch, workers, sessions, counters
//   GET /devices   JSON: one entry a logical device
//   GET /metrics   Prometheus text
//   GET /events    JSON: what befell the slices after ?after=NUMBER (the newest when not given),
//                  waiting up to ?wait_seconds= for the first; see core/event_log.h
//   POST /shutdown ends the head in an orderly way
//
// Thread safety: all methods are thread-safe. Handlers run on the server's threads, several at once.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "causeway/core/status_source.h"

namespace causeway::ops {

class OpsServer {
 public:
  struct Options {
    std::string host = "127.0.0.1";
    int port = 0;  // 0: any free one
    // Names the event log of this head: numbers of another one mean nothing here.
    std::string log_id;
    // Called at most once, by POST /shutdown; must not wait for the server. Empty: refused.
    std::function<void()> on_shutdown;
  };
  struct Request {
    std::map<std::string, std::string> query;
    std::string body;
  };
  // Text to be added to /metrics, in Prometheus format.
  using MetricsSource = std::function<std::string()>;
  using Handler = std::function<absl::StatusOr<nlohmann::json>(const Request&)>;

  OpsServer(Options options, core::StatusSource& source);
  // Stops.
  ~OpsServer();
  OpsServer(const OpsServer&) = delete;
  OpsServer& operator=(const OpsServer&) = delete;

  // More doors, before Start. An error status becomes {"error": ...} with a fitting HTTP code.
  void Get(const std::string& path, Handler handler);
  void Post(const std::string& path, Handler handler);
  void AddMetrics(MetricsSource source);

  // Binds and serves on threads of its own; the port. UNAVAILABLE when the port is taken.
  absl::StatusOr<int> Start();
  // Ends requests in progress within the bounds of base/limits.h. Idempotent.
  void Stop();

 private:
  struct Impl;
  absl::StatusOr<nlohmann::json> WatchEvents(const Request& request);

  std::unique_ptr<Impl> impl_;
};

}  // namespace causeway::ops
