// One session's host buffers: bytes on their way between a client and its arrays.
//
// Buffers are immutable and stored once. Uploads and the requests that use them travel on separate
// channels and race: Claim() may come first, and then waits (through OnReady) for the upload, for
// its failure, or for the session's end, whichever is first. A claimed buffer leaves the store.
//
// Errors: ALREADY_EXISTS for a second buffer under one handle, NOT_FOUND for Lookup and Delete of
// what is not there, DATA_LOSS for an upload whose bytes are not as many as announced,
// RESOURCE_EXHAUSTED (naming the limit) when the session holds too much, CANCELLED after Shutdown.
// Thread safety: all methods may be called from any thread; callbacks run without locks held.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/limits.h"
#include "causeway/base/shared_memory.h"
#include "causeway/core/runtime.h"
#include "causeway/proxy/room.h"

namespace causeway::proxy {

class HostBufferStore : public std::enable_shared_from_this<HostBufferStore> {
 public:
  struct Limits {
    int64_t max_bytes = limits::kSessionBytesMax;      // stored or being uploaded
    int64_t max_buffers = limits::kSessionBuffersMax;  // same, or claimed and awaited
    int64_t max_in_flight = limits::kSessionBytesInFlight;
  };

  // A buffer that is being received. Destroying it before Commit() fails whoever claimed it.
  // Used by one thread at a time.
  class Upload {
   public:
    ~Upload();
    Upload(const Upload&) = delete;
    Upload& operator=(const Upload&) = delete;
    absl::Status Append(absl::string_view bytes);
    // Makes the buffer visible. The upload is over, whatever the result.
    absl::Status Commit();

   private:
    friend class HostBufferStore;
    Upload(std::shared_ptr<HostBufferStore> store, uint64_t handle, int64_t size);
    absl::Status SizeError(int64_t got) const;

    const std::shared_ptr<HostBufferStore> store_;
    const uint64_t handle_;
    const int64_t size_;
    int64_t received_ = 0;
    bool over_ = false;
    // Flat and uninitialised: chunks are copied once, into their final place.
    std::unique_ptr<char[]> data_;
  };

  // `folder`: where this client leaves files instead of sending bytes; "" = nowhere.
  explicit HostBufferStore(Limits limits, std::string folder = "")
      : folder(std::move(folder)),
        limits_(limits),
        in_flight_(std::make_shared<Room>(limits.max_in_flight)) {}

  const std::string folder;

  absl::StatusOr<std::unique_ptr<Upload>> BeginUpload(uint64_t handle, int64_t size);
  // Stores bytes that are complete already; `file` is where they lie, if in one.
  absl::Status Put(uint64_t handle, absl::Cord bytes,
                   std::shared_ptr<const SharedFile> file = nullptr);
  // The same for bytes on their way to the client: in flight until they are deleted and every
  // answer to a look-up is gone.
  absl::Status PutForClient(uint64_t handle, absl::Cord bytes);
  struct Found {
    absl::Cord bytes;
    std::shared_ptr<void> lease;  // to be kept as long as the bytes are
  };
  // Never waits.
  absl::StatusOr<Found> Lookup(uint64_t handle);
  absl::Status Delete(uint64_t handle);
  // Takes the buffer out of the store, now or when it comes. Never null.
  std::shared_ptr<core::HostBytes> Claim(uint64_t handle);

  // Fails what waits with CANCELLED and drops everything. Later calls get CANCELLED too.
  void Shutdown(absl::string_view reason);

  // Bytes that a request claimed and that still take memory here, and bytes for the client.
  Room& in_flight() { return *in_flight_; }

  // Buffers that were claimed and whose bytes the client has not sent yet.
  int64_t num_awaited() const { return awaited_.load(std::memory_order_relaxed); }

  int64_t num_buffers();
  int64_t num_bytes();

 private:
  class PendingBytes;
  struct Entry {
    bool uploading = false;
    bool ready = false;
    int64_t size = 0;
    absl::Cord bytes;                        // ready
    std::shared_ptr<void> lease;             // ready, and for the client
    std::shared_ptr<const SharedFile> file;  // where they lie, if in one
    std::shared_ptr<PendingBytes> claimant;  // claimed before ready
  };

  absl::Status Reserve(uint64_t handle, int64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Finish(uint64_t handle, absl::StatusOr<absl::Cord> bytes,
              std::shared_ptr<const SharedFile> file = nullptr);

  absl::Status Store(uint64_t handle, absl::Cord bytes, std::shared_ptr<void> lease,
                     std::shared_ptr<const SharedFile> file);
  // The same bytes, counted as in flight until the last copy of the cord is gone.
  absl::Cord Counted(absl::Cord bytes) const;

  const Limits limits_;
  const std::shared_ptr<Room> in_flight_;
  absl::Mutex mu_;
  absl::flat_hash_map<uint64_t, Entry> entries_ ABSL_GUARDED_BY(mu_);
  int64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status shutdown_ ABSL_GUARDED_BY(mu_);
  std::atomic<int64_t> awaited_{0};  // changed under mu_
};

}  // namespace causeway::proxy
