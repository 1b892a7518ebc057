// What is known of each connection of gloo, and the three calls.
#include "causeway/device/gloo_calls.h"

#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "causeway/device/call_slots.h"

namespace causeway::device {
namespace {

constexpr char kJaxlib[] = "libjax_common.so";

struct Connection {
  bool written = false;
  // The last message was not taken: gloo holds it, and asks to be told when it can go on.
  bool queued = false;
  // Where gloo wants the first bytes of every message; the others go elsewhere.
  const char* header = nullptr;
  size_t header_size = 0;
};

struct Table {
  absl::Mutex mu;
  absl::flat_hash_map<int, Connection> connections ABSL_GUARDED_BY(mu);
};

// Connections are in several tables, lest the threads of one wait for those of another. Never
// destroyed: gloo's threads live as long as the process.
Table& TableOf(int fd) {
  constexpr unsigned kTables = 64;
  static Table* const tables = new Table[kTables];
  return tables[static_cast<unsigned>(fd) % kTables];
}

std::atomic<int64_t> spoiled_messages{0};

bool IsTheEnd(int error) { return error != EAGAIN && error != EWOULDBLOCK && error != EINTR; }

}  // namespace

ssize_t GlooWritev(int fd, const iovec* parts, int count) {
  const ssize_t sent = ::writev(fd, parts, count);
  const int error = errno;
  const bool over = sent < 0 && IsTheEnd(error);
  {
    Table& table = TableOf(fd);
    absl::MutexLock lock(&table.mu);
    Connection& connection = table.connections[fd];
    connection.written = true;
    if (sent >= 0 || error != EINTR) connection.queued = sent < 0 && !over;
  }
  errno = error;
  if (!over) return sent;
  ssize_t size = 0;
  for (int i = 0; i < count; ++i) size += static_cast<ssize_t>(parts[i].iov_len);
  return size;
}

ssize_t GlooRecv(int fd, void* into, size_t size, int flags) {
  const ssize_t got = ::recv(fd, into, size, flags);
  const int error = errno;
  const bool over = size > 0 && (got == 0 || (got < 0 && IsTheEnd(error)));
  const char* at = static_cast<const char*>(into);
  bool queued = false, in_message = false;
  {
    Table& table = TableOf(fd);
    absl::MutexLock lock(&table.mu);
    Connection& connection = table.connections[fd];
    if (connection.header == nullptr) {
      connection.header = at;
      connection.header_size = size;
    }
    if (over && connection.written) {
      queued = std::exchange(connection.queued, false);
      in_message = at < connection.header || at >= connection.header + connection.header_size;
    }
  }
  if (queued) {
    // Writing fails from now on, so gloo is told to go on, and comes here again.
    (void)::shutdown(fd, SHUT_RDWR);
    errno = EAGAIN;
    return -1;
  }
  if (in_message) {
    ++spoiled_messages;
    std::memset(into, 0, size);
    return static_cast<ssize_t>(size);
  }
  errno = error;
  return got;
}

int GlooClose(int fd) {
  {
    Table& table = TableOf(fd);
    absl::MutexLock lock(&table.mu);
    table.connections.erase(fd);
  }
  return ::close(fd);
}

bool InstallGlooCalls() {
  // The first one first: what is known of a connection must be forgotten with it.
  return ReplaceCalls(kJaxlib, "close", reinterpret_cast<void*>(&GlooClose)) &&
         ReplaceCalls(kJaxlib, "recv", reinterpret_cast<void*>(&GlooRecv)) &&
         ReplaceCalls(kJaxlib, "writev", reinterpret_cast<void*>(&GlooWritev));
}

int64_t SpoiledMessages() { return spoiled_messages; }

}  // namespace causeway::device
