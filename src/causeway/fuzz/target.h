// What a fuzz binary tests. Each binary links one definition of TheTarget().
#pragma once

#include <cstdint>
#include <vector>

#include "causeway/fuzz/frames.h"
#include "google/protobuf/message.h"

namespace causeway::fuzz {

class Target {
 public:
  virtual ~Target() = default;
  // Frames are of kinds 0 to this - 1; others are ignored.
  virtual int num_kinds() const = 0;
  // The message that frames of a kind hold, so that mutations stay readable; nullptr: plain bytes.
  virtual const google::protobuf::Message* Prototype(uint8_t kind) const = 0;
  // Feeds one input to fresh objects. Crashes (CHECK, sanitizers) are the findings.
  virtual void Run(const std::vector<Frame>& frames) = 0;
};

Target& TheTarget();

// To be called once before the first input: without protobuf's complaints about every broken message
// and Debian's lock-order checker in Abseil, an input takes a tenth of the time.
void QuietLibraries();

}  // namespace causeway::fuzz
