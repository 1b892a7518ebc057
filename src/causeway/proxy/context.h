// What all sessions of one proxy share: the runtime, options, counters, the table of sessions.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "causeway/core/runtime.h"
#include "causeway/proxy/host_buffer_store.h"
#include "causeway/proxy/proxy.h"

namespace causeway::proxy {

class Session;

struct Counters {
  static constexpr int kKinds = 64;  // by number in the request's oneof; 0 = unknown
  std::array<std::atomic<uint64_t>, kKinds> requests{};
  std::atomic<uint64_t> failed_requests{0};
  std::atomic<uint64_t> sessions_opened{0};
  std::atomic<uint64_t> stores{0};
  std::atomic<uint64_t> store_bytes{0};
  std::atomic<uint64_t> lookups{0};
  std::atomic<uint64_t> lookup_bytes{0};
  std::atomic<uint64_t> disk_reads{0};
  std::atomic<uint64_t> disk_read_bytes{0};
};

class Context {
 public:
  Context(core::Runtime& the_runtime, Options the_options)
      : runtime(the_runtime), options(std::move(the_options)) {}

  core::Runtime& runtime;
  const Options options;
  Version newest() const { return {options.max_protocol, kMaxVersion.serdes}; }
  Counters counters;

  // A stream begins and ends. RESOURCE_EXHAUSTED or UNAVAILABLE when there can be no more.
  absl::Status AddStream(const std::shared_ptr<Session>& session);
  void RemoveStream(const Session* session);
  size_t num_streams();
  // No more streams from now on; returns those that are open.
  std::vector<std::shared_ptr<Session>> Drain();
  bool AwaitNoStreams(absl::Time deadline);

  // Host-buffer calls find their session's buffers here.
  void Publish(SessionId id, std::shared_ptr<HostBufferStore> store);
  void Retract(SessionId id);
  absl::StatusOr<std::shared_ptr<HostBufferStore>> FindStore(uint64_t session_id);

 private:
  absl::Mutex mu_;
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  absl::flat_hash_map<const Session*, std::shared_ptr<Session>> streams_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<uint64_t, std::shared_ptr<HostBufferStore>> stores_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::proxy
