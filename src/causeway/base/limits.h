// Every bound of the project in one place: sizes, counts, queues and waits.
//
// A thing that grows with what somebody sends, or that waits for somebody, has a bound here; code
// that meets it refuses with RESOURCE_EXHAUSTED (or ends the wait with DEADLINE_EXCEEDED) and says
// which bound it was. Units are in the names; *_max is inclusive.
#pragma once

#include <cstddef>
#include <cstdint>

namespace causeway::limits {

// ---------------------------------------------------------------- messages
// Largest message that any server or client of ours takes. A client's inline program or a
// worker's compiled one is the largest thing that is not streamed.
inline constexpr int kMessageBytesMax = 1 << 30;
// Several queued commands go to a worker in one piece up to this size; a larger one goes alone.
inline constexpr int64_t kCommandBatchBytesMax = 256 << 10;
// A bulk transfer is cut into pieces of this size, so that none of them holds up another for long.
inline constexpr int64_t kDataChunkBytes = 1 << 20;
// Bytes on their way from one worker to another, before another block may follow.
inline constexpr int64_t kPushWindowBytes = int64_t{256} << 20;
// Frames between workers: a message, and the bytes that it describes. A large block goes in parts
// of this size, over at most so many connections at once.
inline constexpr int64_t kPushPartBytes = 4 << 20;
inline constexpr int kPushLanesMax = 4;
inline constexpr uint32_t kPushMessageBytesMax = 8 << 20;
inline constexpr int64_t kPushBodyBytesMax = 64 << 20;
// Connections of peers that a worker serves.
inline constexpr size_t kPushConnectionsMax = 1 << 14;
// A peer that takes nothing for this long has broken its connection.
inline constexpr int kPushStallSecondsMax = 60;
// What may wait for one worker's network before the head gives that worker up: a worker that takes
// nothing for this long is as good as dead, and the head's memory is not its queue.
inline constexpr int64_t kWorkerQueueBytesMax = int64_t{8} << 30;

// ---------------------------------------------------------------- sessions of JAX clients
inline constexpr int kSessionsMax = 1 << 12;
// A connection's calls at once: clients open one a host buffer.
inline constexpr int kStreamsMax = 1 << 20;
// Host buffers of a session that are stored or being uploaded; the head takes less on a machine
// with less than twice this memory.
inline constexpr int64_t kSessionBytesMax = int64_t{64} << 30;
inline constexpr int64_t kSessionBuffersMax = 1 << 20;
// Handles of one session. Each costs the head some hundred bytes.
inline constexpr int64_t kSessionArraysMax = 1 << 22;
inline constexpr int64_t kSessionExecutablesMax = 1 << 16;
// Outcomes that the client has not asked for: the oldest futures are forgotten, and no execution
// with a status starts while so many are unasked.
inline constexpr int64_t kSessionFuturesMax = 1 << 16;
inline constexpr int64_t kSessionStatusesMax = 1 << 16;
// Stacks of the client that wait to be released with a numbered reply; the oldest are not released.
inline constexpr int64_t kSessionStacksMax = 1 << 18;
// Beyond these the session's requests are not read until there is less; nothing is refused.
inline constexpr int64_t kSessionRepliesMax = 1 << 12;    // that the client has not read
inline constexpr int64_t kSessionOpenCallsMax = 1 << 14;  // read and not answered
inline constexpr int64_t kSessionBytesInFlight = int64_t{1} << 30;  // on their way to or from workers
// How far a session may run ahead of the workers: one piece of work in so many (a worker) is asked
// for its end, and that many may be outstanding.
inline constexpr int kWorkPerMark = 64;
inline constexpr int kMarksMax = 32;

// ---------------------------------------------------------------- arrays
inline constexpr int kArrayRankMax = 64;
// Elements, an empty dimension counted as one: so that bytes and strides fit 63 bits.
inline constexpr int64_t kArrayElementsMax = int64_t{1} << 50;
// A host buffer with strides may span this many times the bytes of its elements: strides of a real
// array are a permutation of the dense ones, give or take padding.
inline constexpr int64_t kStrideSpanMax = 16;
// Lists of devices that the head remembers; it starts over when there are more.
inline constexpr int64_t kDeviceListsMax = 1 << 16;
// Changes of sharding whose intersections the head remembers; the oldest are forgotten.
inline constexpr int64_t kReshardPlansMax = 1 << 10;
// Devices that one sharding or device assignment may name.
inline constexpr int64_t kShardsMax = 1 << 20;

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
inline constexpr int kSparesMax = 1 << 10;
inline constexpr size_t kLossesKept = 16;  // of each place, with their texts
// Connections of workers to the head's port: two each, and those that have not said who they are.
inline constexpr int kWorkerConnectionsMax = 4 * kWorkersMax;
// What such a connection may say, and how long it may take, before the head knows it.
inline constexpr size_t kHelloBytesMax = 64 << 10;
inline constexpr int kHelloSecondsMax = 10;
inline constexpr size_t kSentinelsMax = 2 * kWorkersMax;  // connections to the death watch

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
// What a server gives its calls and connections before it cuts them off.
inline constexpr int kServerGraceMs = 500;

}  // namespace causeway::limits
