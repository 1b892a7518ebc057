// Reading into files: shards go where they belong in a dense array that a client will map.
#include <algorithm>
#include <memory>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "causeway/worker/file_boxes.h"
#include "causeway/worker/op_graph.h"

namespace causeway::worker {

void OpGraph::Run(FetchFile fetch) {
  std::vector<ValueRef> values;
  for (const FilePart& part : fetch.parts) values.push_back(Find(part.buffer));
  Submit(values, [this, values, fetch = std::move(fetch)] {
    struct Shared {
      absl::Mutex mu;
      size_t left = 0;
      absl::Status status;
    };
    auto shared = std::make_shared<Shared>();
    shared->left = fetch.parts.size() + 1;
    auto one_done = [this, shared, request = fetch.request](const absl::Status& status) {
      absl::Status first;
      {
        absl::MutexLock lock(&shared->mu);
        shared->status.Update(status);
        if (--shared->left > 0) return;
        first = shared->status;
      }
      host_->Emit(Reply{.request = request, .status = first});
    };
    for (size_t i = 0; i < fetch.parts.size(); ++i) {
      if (!values[i]->error.ok()) {
        one_done(values[i]->error);
        continue;
      }
      auto copy = device_->StartHostCopy(values[i]->array, fetch.parts[i].device);
      if (!copy.ok()) {
        one_done(copy.status());
        continue;
      }
      host_->AwaitBytes(*std::move(copy),
                        [this, one_done, path = fetch.path,
                         part = fetch.parts[i]](absl::StatusOr<device::HostShard> shard) {
                          if (!shard.ok()) {
                            one_done(shard.status());
                            return;
                          }
                          const absl::Time start = host_->Now();
                          const absl::Status written = WriteBox(path, part, *shard);
                          if (written.ok()) {
                            host_->Moved("download", "shared_memory",
                                         static_cast<int64_t>(shard->bytes->size()),
                                         host_->Now() - start);
                          }
                          one_done(written);
                        });
    }
    one_done(absl::OkStatus());
  });
  Pump();
}

}  // namespace causeway::worker
