// Writes metrics family by family, as the exposition format asks.
#include "causeway/ops/metrics_text.h"

#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace causeway::ops {
namespace {

// Anything may be a counter's name here; Prometheus takes letters, digits and underscores.
std::string Clean(const std::string& name) {
  std::string clean = name;
  for (char& c : clean) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return clean;
}

std::string Label(const std::string& value) {
  return absl::StrReplaceAll(value, {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}});
}

class Text {
 public:
  void Family(const std::string& name, const char* type, const char* help) {
    name_ = absl::StrCat("causeway_", name);
    absl::StrAppend(&text_, "# HELP ", name_, " ", help, "\n# TYPE ", name_, " ", type, "\n");
  }
  template <class Number>
  void Sample(const std::string& labels, Number value) {
    absl::StrAppend(&text_, name_, labels.empty() ? "" : absl::StrCat("{", labels, "}"), " ", value,
                    "\n");
  }
  std::string Take() { return std::move(text_); }

 private:
  std::string name_;
  std::string text_;
};

std::string WorkerLabel(const core::WorkerStatus& worker) {
  return absl::StrCat("worker=\"", worker.id.value(), "\",slice=\"", worker.slice, "\"");
}

}  // namespace

std::string MetricsText(const core::ClusterStatus& status) {
  Text text;
  text.Family("complete", "gauge", "1 when every worker is in the current epoch");
  text.Sample("", status.complete ? 1 : 0);
  text.Family("epoch", "gauge", "Number of the current membership");
  text.Sample("", status.epoch.value());
  text.Family("sessions", "gauge", "Open client sessions");
  text.Sample("", status.sessions.size());
  text.Family("devices", "gauge", "Logical devices of the cluster");
  text.Sample(absl::StrCat("platform=\"", Label(status.shape.platform), "\""),
              status.devices.size());

  for (const auto& [name, value] : status.counters) {
    const char* suffix = absl::EndsWith(name, "_total") ? "" : "_total";
    text.Family(absl::StrCat(Clean(name), suffix), "counter", "Count since the head started");
    text.Sample("", value);
  }
  for (const auto& [name, value] : status.gauges) {
    text.Family(Clean(name), "gauge", "Value now");
    text.Sample("", value);
  }

  text.Family("worker_up", "gauge", "1 when the worker is attached");
  for (const core::WorkerStatus& worker : status.workers) {
    text.Sample(WorkerLabel(worker), worker.alive ? 1 : 0);
  }
  text.Family("worker_queued_bytes", "gauge", "Bytes that wait for the worker's network");
  for (const core::WorkerStatus& worker : status.workers) {
    text.Sample(WorkerLabel(worker), worker.queued_bytes);
  }
  text.Family("worker_unconfirmed_launches", "gauge", "Launches that the worker has not confirmed");
  for (const core::WorkerStatus& worker : status.workers) {
    text.Sample(WorkerLabel(worker), worker.unconfirmed_launches);
  }
  text.Family("worker_last_heard_seconds", "gauge", "Time since the worker last spoke");
  for (const core::WorkerStatus& worker : status.workers) {
    if (worker.last_heard_age == absl::InfiniteDuration()) continue;
    text.Sample(WorkerLabel(worker), absl::ToDoubleSeconds(worker.last_heard_age));
  }
  std::set<std::string> counted;
  for (const core::WorkerStatus& worker : status.workers) {
    for (const auto& [name, value] : worker.transfers) counted.insert(name);
  }
  for (const std::string& name : counted) {
    text.Family(absl::StrCat("worker_", Clean(name), "_total"), "counter",
                "Transfers and connections by class and path, as the worker reports them");
    for (const core::WorkerStatus& worker : status.workers) {
      auto it = worker.transfers.find(name);
      if (it != worker.transfers.end()) text.Sample(WorkerLabel(worker), it->second);
    }
  }
  std::set<std::string> names;
  for (const core::WorkerStatus& worker : status.workers) {
    for (const auto& [name, value] : worker.stats) names.insert(name);
  }
  for (const std::string& name : names) {
    text.Family(absl::StrCat("worker_stat_", Clean(name)), "gauge", "Reported by the worker");
    for (const core::WorkerStatus& worker : status.workers) {
      auto it = worker.stats.find(name);
      if (it != worker.stats.end()) text.Sample(WorkerLabel(worker), it->second);
    }
  }
  return text.Take();
}

}  // namespace causeway::ops
