// Routes requests of the HTTP library to the formats and handlers.
#include "causeway/ops/ops_server.h"

#include <httplib.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "causeway/base/limits.h"
#include "causeway/base/status_macros.h"
#include "causeway/ops/metrics_text.h"
#include "causeway/ops/status_json.h"

namespace causeway::ops {
namespace {

using nlohmann::json;

constexpr const char* kJson = "application/json";

int HttpCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    default:
      return 500;
  }
}

void Answer(const absl::StatusOr<json>& result, httplib::Response& response) {
  const json body = result.ok() ? *result : json{{"error", std::string(result.status().message())}};
  if (!result.ok()) response.status = HttpCode(result.status());
  // Names from outside may hold bytes that are no UTF-8.
  response.set_content(body.dump(2, ' ', false, json::error_handler_t::replace) + "\n", kJson);
}

OpsServer::Request FromHttp(const httplib::Request& http) {
  OpsServer::Request request;
  request.query.insert(http.params.begin(), http.params.end());
  request.body = http.body;
  return request;
}

std::string MissingWorkers(const core::ClusterStatus& status) {
  std::string missing;
  for (const core::WorkerStatus& worker : status.workers) {
    if (worker.alive) continue;
    absl::StrAppend(&missing, missing.empty() ? "" : "; ", "worker ", worker.id.value(), " is ",
                    worker.state, worker.why.empty() ? "" : ": ", worker.why);
  }
  return missing.empty() ? "workers are entering the epoch" : missing;
}

}  // namespace

struct OpsServer::Impl {
  Impl(Options options, core::StatusSource& status_source)
      : options(std::move(options)), source(status_source) {}

  const Options options;
  core::StatusSource& source;
  httplib::Server server;
  std::map<std::string, Handler> posts;
  std::vector<MetricsSource> metrics;
  std::atomic<bool> shutdown_asked{false};
  std::atomic<int> watchers{0};
  absl::Notification running;
  absl::Mutex mu;  // of Start and Stop
  bool started = false;
  std::thread thread;
};

OpsServer::OpsServer(Options options, core::StatusSource& source)
    : impl_(std::make_unique<Impl>(std::move(options), source)) {
  httplib::Server& server = impl_->server;
  // The library would wait for a body until the read timeout when a POST announces none, as
  // `curl -X POST` does.
  server.set_pre_routing_handler(
      [this](const httplib::Request& request, httplib::Response& response) {
        auto post = impl_->posts.find(request.path);
        if (request.method != "POST" || request.has_header("Content-Length") ||
            request.has_header("Transfer-Encoding") || post == impl_->posts.end()) {
          return httplib::Server::HandlerResponse::Unhandled;
        }
        Answer(post->second(FromHttp(request)), response);
        return httplib::Server::HandlerResponse::Handled;
      });
  server.new_task_queue = [this] {
    // The library drops a stop that comes before it runs, and calls this once it does.
    impl_->running.Notify();
    return new httplib::ThreadPool(limits::kHttpThreads + limits::kEventWatchersMax);
  };
  server.set_payload_max_length(limits::kHttpBodyBytesMax);
  server.set_read_timeout(limits::kHttpSecondsMax);
  server.set_write_timeout(limits::kHttpSecondsMax);
  server.set_keep_alive_timeout(1);
  // Without SO_REUSEPORT, which would let two heads share a port and split its calls.
  server.set_socket_options([](socket_t sock) {
    const int yes = 1;
    setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  });
  server.Get("/health", [](const httplib::Request&, httplib::Response& response) {
    response.set_content("ok\n", "text/plain");
  });
  server.Get("/ready", [this](const httplib::Request&, httplib::Response& response) {
    const core::ClusterStatus status = impl_->source.GetStatus();
    if (!status.complete) response.status = 503;
    response.set_content(status.complete ? "ok\n" : MissingWorkers(status) + "\n", "text/plain");
  });
  server.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
    std::string text = MetricsText(impl_->source.GetStatus());
    for (const MetricsSource& more : impl_->metrics) text += more();
    response.set_content(text, "text/plain; version=0.0.4");
  });
  Get("/status", [this](const Request&) -> absl::StatusOr<json> {
    return StatusJson(impl_->source.GetStatus());
  });
  Get("/devices", [this](const Request&) -> absl::StatusOr<json> {
    return DevicesJson(impl_->source.GetStatus());
  });
  Get("/events", [this](const Request& request) { return WatchEvents(request); });
  Post("/shutdown", [this](const Request&) -> absl::StatusOr<json> {
    if (!impl_->options.on_shutdown) {
      return absl::UnimplementedError("this server cannot end its process; send it SIGTERM");
    }
    if (!impl_->shutdown_asked.exchange(true)) impl_->options.on_shutdown();
    return json{{"shutting_down", true}};
  });
}

OpsServer::~OpsServer() { Stop(); }

absl::StatusOr<json> OpsServer::WatchEvents(const Request& request) {
  auto number = [&request](const char* name, uint64_t fallback) -> absl::StatusOr<uint64_t> {
    auto it = request.query.find(name);
    uint64_t value = fallback;
    if (it != request.query.end() && !absl::SimpleAtoi(it->second, &value)) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, "=", it->second, " is no number: give one, from 0"));
    }
    return value;
  };
  core::EventLog& log = impl_->source.events();
  ASSIGN_OR_RETURN(const uint64_t after, number("after", log.last()));
  ASSIGN_OR_RETURN(uint64_t seconds, number("wait_seconds", 0));
  seconds = std::min<uint64_t>(seconds, limits::kEventWaitSecondsMax);
  auto leave = absl::MakeCleanup([this] { --impl_->watchers; });
  if (++impl_->watchers > limits::kEventWatchersMax && seconds > 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", limits::kEventWatchersMax,
                     " wait for events here: ask without wait_seconds, now and then"));
  }
  return EventsJson(impl_->options.log_id, log.After(after, absl::Seconds(seconds)));
}

void OpsServer::Get(const std::string& path, Handler handler) {
  impl_->server.Get(path, [handler = std::move(handler)](const httplib::Request& request,
                                                         httplib::Response& response) {
    Answer(handler(FromHttp(request)), response);
  });
}

void OpsServer::Post(const std::string& path, Handler handler) {
  impl_->posts[path] = handler;
  impl_->server.Post(path, [handler = std::move(handler)](const httplib::Request& request,
                                                          httplib::Response& response) {
    Answer(handler(FromHttp(request)), response);
  });
}

void OpsServer::AddMetrics(MetricsSource source) { impl_->metrics.push_back(std::move(source)); }

absl::StatusOr<int> OpsServer::Start() {
  absl::MutexLock lock(&impl_->mu);
  const Options& options = impl_->options;
  int port = options.port;
  bool bound = true;
  if (port == 0) {
    port = impl_->server.bind_to_any_port(options.host);
    bound = port > 0;
  } else {
    bound = impl_->server.bind_to_port(options.host, port);
  }
  if (!bound) {
    return absl::UnavailableError(absl::StrCat("port ", options.port, " on ", options.host,
                                               " is taken; choose another --ops-port, or 0 for "
                                               "any free one"));
  }
  impl_->thread = std::thread([impl = impl_.get()] { impl->server.listen_after_bind(); });
  impl_->started = true;
  impl_->running.WaitForNotification();
  return port;
}

void OpsServer::Stop() {
  absl::MutexLock lock(&impl_->mu);
  if (!impl_->started) return;
  impl_->started = false;
  impl_->server.stop();
  impl_->thread.join();
}

}  // namespace causeway::ops
