// The receiving process of the data-plane benchmark: a real data plane, and a plain TCP sink.
#pragma once

#include <cstdint>

#include "causeway/base/strong_id.h"

namespace causeway::bench {

// What the sending process asks for, over a Unix socket; both structs are sent as they lie in
// memory.
struct Order {
  enum class Kind : int32_t { kPlane, kRaw, kDrop };
  Kind kind = Kind::kPlane;
  int32_t blocks = 1;        // of `bytes` each
  int64_t bytes = 0;
  uint64_t first_transfer = 0;
  uint64_t stamp = 0;        // what Stamp() was given for these bytes
  bool new_memory = false;   // receive into memory that was never touched; kept until kDrop
};
// Three for each order but kDrop, which has one: it may begin; all bytes are here; they are right.
struct Answer {
  double cpu_us = 0;  // of this process so far
  bool right = true;
  int32_t plane_port = 0, raw_port = 0;  // in the first answer of all, which nobody asked for
  char memory[256] = {};
};

// Bytes to send and to compare with: the same in both processes.
class Pattern {
 public:
  explicit Pattern(int64_t bytes);
  ~Pattern();
  char* data() { return data_; }
  // Makes the first `bytes` differ from all earlier ones, on every page.
  void Stamp(int64_t bytes, uint64_t stamp);

 private:
  char* data_;
  int64_t bytes_;
};

// Microseconds of processor time of this process.
double ProcessMicroseconds();
// Both end the process when the other one is gone.
void Put(int fd, const void* from, size_t size);
void Get(int fd, void* to, size_t size);

// Serves orders on `fd` until its other end is closed.
void Receive(int fd, int lanes, int64_t bytes_max);

}  // namespace causeway::bench
