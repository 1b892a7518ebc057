// Every bound of the project in one place: sizes, counts, queues and waits.
//
// A thing that grows with what somebody sends, or that waits for somebody, has a bound here; code
// that meets it refuses with RESOURCE_EXHAUSTED (or ends the wait with DEADLINE_EXCEEDED) and says
// which bound it was. Units are in the names; *_max is inclusive.
#pragma once

#include <cstdint>

namespace causeway::limits {

// ---------------------------------------------------------------- messages
// Largest gRPC message that any server or client of ours takes. A client's inline program or a
// worker's compiled one is the largest thing that is not streamed.
inline constexpr int kMessageBytesMax = 1 << 30;
// Several queued commands travel in one message up to this size; a larger one travels alone.
inline constexpr int64_t kCommandBatchBytesMax = 256 << 10;
// A bulk transfer is cut into pieces of this size, so that none of them holds up another for long.
inline constexpr int64_t kDataChunkBytes = 1 << 20;
// What may wait for one worker's network before the head gives that worker up: a worker that takes
// nothing for this long is as good as dead, and the head's memory is not its queue.
inline constexpr int64_t kWorkerQueueBytesMax = int64_t{8} << 30;

// ---------------------------------------------------------------- coordination
inline constexpr int64_t kKeyBytesMax = 4 << 10;
inline constexpr int64_t kValueBytesMax = 16 << 20;
inline constexpr int64_t kKeysMax = 1 << 20;
inline constexpr int64_t kKeyValueBytesMax = int64_t{1} << 30;
// Calls that wait for a key. Every device of a clique waits for every other one's address.
inline constexpr int64_t kKeyWaitersMax = 1 << 17;
inline constexpr int64_t kTaskWatchersMax = 1 << 14;
inline constexpr int64_t kBarriersMax = 1 << 14;
inline constexpr int64_t kBarrierTasksMax = 1 << 14;
// A finished barrier answers late callers for as long as this many younger ones have not finished.
inline constexpr int64_t kFinishedBarriersMax = 1 << 12;
// A barrier's own timeout is cut to this.
inline constexpr int64_t kBarrierWaitMsMax = 3'600'000;
// Node ids that one worker may use up; each restart and each epoch after a failure takes one. Every
// worker reads all nodes' devices whenever it enters an epoch (0.2 s and more with 4,000 nodes), so
// small clusters share kDefaultNodes evenly, and every worker gets at least the first number.
inline constexpr int kIncarnationsPerWorker = 64;
inline constexpr int kIncarnationsPerWorkerMax = 4096;
inline constexpr int kDefaultNodes = 512;
// XLA numbers the devices of a CPU node from node * 2048.
inline constexpr int kDevicesPerNodeMax = 2048;

// ---------------------------------------------------------------- cluster
inline constexpr int kSlicesMax = 1 << 12;
inline constexpr int kHostsPerSliceMax = 1 << 12;
inline constexpr int kWorkersMax = 1 << 12;

// ---------------------------------------------------------------- operations over HTTP
inline constexpr int64_t kHttpBodyBytesMax = 1 << 20;
inline constexpr int kHttpThreads = 4;
inline constexpr int kHttpSecondsMax = 10;  // to read a request, or to write an answer
// Who watches the events holds a thread of the server while it waits.
inline constexpr int kEventWatchersMax = 32;
inline constexpr int kEventWaitSecondsMax = 30;
inline constexpr int kEventsMax = 4096;  // kept for late watchers

// ---------------------------------------------------------------- shutdown
// From a signal to the end of the head's process, whatever the peers do.
inline constexpr int kHeadShutdownSecondsMax = 10;
// What a gRPC server gives its calls before it cancels them.
inline constexpr int kServerGraceMs = 500;

}  // namespace causeway::limits
