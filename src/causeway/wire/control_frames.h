// The kinds of frames (net/frames.h) on the connections between the head and a worker.
//
//   worker to head    kAskLocal first, perhaps: what it says of its memory (Hello.memory)
//   head to worker    in answer kLocal: the path of its Unix socket; or kNoLocal: a Status, why not
//   worker to head    kAttach or kBulk, with an Event that holds Hello; then kMessage: Events
//   head to worker    kMessage: one Command each
//   either            kEnd: a Status, after the last message; its sender sends nothing more
//
// A connection that ends without kEnd is lost.
#pragma once

#include <cstdint>

namespace causeway::wire {

enum class ControlFrame : uint32_t {
  kMessage = 0,
  kEnd = 1,
  kAttach = 2,
  kBulk = 3,
  kAskLocal = 4,
  kLocal = 5,
  kNoLocal = 6,
};

constexpr uint32_t Kind(ControlFrame frame) { return static_cast<uint32_t>(frame); }

}  // namespace causeway::wire
