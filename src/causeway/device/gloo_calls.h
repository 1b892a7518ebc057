// Stands between gloo and its connections, so that all who wait hear of a connection's end.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

namespace causeway::device {

// When a connection ends, gloo tells everyone who waits for it, except for two, who would wait for
// half a minute:
//
// - Who sends. A message that the connection does not take at once is queued, also when it will
//   never take any; gloo forgets the queue.
// - Who receives a message of which a part has come.
//
// Nothing can reach them afterwards, so gloo must learn of the end later than they do. These
// functions behave as the system's of the same purpose, except on a connection that is over. What
// is sent there counts as sent, as it does when the peer dies a moment later. The end is hidden until
// gloo has sent all it has queued in that way, and until the message that has come in part is
// whole: the rest of it is zeros, and the launches of that time are known as spoiled.
//
// Only gloo calls writev in jaxlib, so a connection is gloo's when something was written to it.
// Thread safety: thread-safe.
ssize_t GlooWritev(int fd, const iovec* parts, int count);
ssize_t GlooRecv(int fd, void* into, size_t size, int flags);
int GlooClose(int fd);

// Puts them in the place of the system's in jaxlib, which must be loaded. May be repeated. Returns
// whether jaxlib makes these calls; if not, survivors of a lost peer may have to be given up.
bool InstallGlooCalls();

// How many messages were made whole here. A launch over several devices during which this grows has
// failed, whatever XLA says.
int64_t SpoiledMessages();

}  // namespace causeway::device
