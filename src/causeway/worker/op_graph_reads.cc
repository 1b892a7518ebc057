// Reading: shards as chunks for the head, or written where they belong in a file that a client maps.
#include <algorithm>
#include <memory>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "causeway/base/probes.h"
#include "causeway/worker/file_boxes.h"
#include "causeway/worker/op_graph.h"

namespace causeway::worker {
namespace {

constexpr int64_t kChunkBytes = 1 << 20;
// What another thread would take longer to be woken for than to do.
constexpr int64_t kSmallBytes = 64 << 10;

// Answers a request once, with the first error, when all its parts are done. Thread-safe.
class Parts {
 public:
  Parts(GraphHost* host, RequestId request, size_t count)
      : host_(host), request_(request), left_(count) {}
  void Done(const absl::Status& status) {
    absl::Status first;
    {
      absl::MutexLock lock(&mu_);
      status_.Update(status);
      if (--left_ > 0) return;
      first = status_;
    }
    host_->Emit(Reply{.request = request_, .status = first});
  }

 private:
  GraphHost* const host_;
  const RequestId request_;
  absl::Mutex mu_;
  size_t left_ ABSL_GUARDED_BY(mu_);
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

void OpGraph::ReadShard(const ValueRef& value, int32_t device,
                        absl::AnyInvocable<void(absl::StatusOr<device::HostShard>)> done) {
  if (!value->error.ok()) return done(value->error);
  auto copy = device_->StartHostCopy(value->array, device);
  if (!copy.ok()) return done(copy.status());
  if ((*copy)->here() && value->array->bytes() <= kSmallBytes) return done((*copy)->Await());
  host_->AwaitBytes(*std::move(copy), std::move(done));
}

void OpGraph::Run(Fetch fetch) {
  ValueRef value = Find(fetch.buffer);
  Submit({value}, [this, value, fetch = std::move(fetch)] {
    if (!value->error.ok() && PLANTED("graph.lost_reply")) return;
    auto parts = std::make_shared<Parts>(host_, fetch.request, fetch.devices.size() + 1);
    for (const int32_t device : fetch.devices) {
      ReadShard(value, device, [this, parts, request = fetch.request,
                                device](absl::StatusOr<device::HostShard> shard) {
        if (shard.ok()) {
          const int64_t total = static_cast<int64_t>(shard->bytes->size());
          int64_t offset = 0;
          do {
            const int64_t size = std::min(kChunkBytes, total - offset);
            host_->Emit(FetchData{request, device, offset, shard->bytes, size});
            offset += size;
          } while (offset < total);
        }
        parts->Done(shard.status());
      });
    }
    parts->Done(value->error);
  });
  Pump();
}

void OpGraph::Run(FetchFile fetch) {
  std::vector<ValueRef> values;
  for (const FilePart& part : fetch.parts) values.push_back(Find(part.buffer));
  Submit(values, [this, values, fetch = std::move(fetch)] {
    auto parts = std::make_shared<Parts>(host_, fetch.request, fetch.parts.size() + 1);
    for (size_t i = 0; i < fetch.parts.size(); ++i) {
      ReadShard(values[i], fetch.parts[i].device,
                [this, parts, path = fetch.path,
                 part = fetch.parts[i]](absl::StatusOr<device::HostShard> shard) {
                  if (!shard.ok()) return parts->Done(shard.status());
                  const absl::Time start = host_->Now();
                  const absl::Status written = WriteBox(path, part, *shard);
                  if (written.ok()) {
                    host_->Moved("download", "shared_memory",
                                 static_cast<int64_t>(shard->bytes->size()),
                                 host_->Now() - start);
                  }
                  parts->Done(written);
                });
    }
    parts->Done(absl::OkStatus());
  });
  Pump();
}

}  // namespace causeway::worker
