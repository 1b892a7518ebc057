// The form of every fuzz input: a list of frames, each of one kind.
//
//   frame = kind (1 byte), length (varint), bytes
//
// A last frame that is cut off keeps what there is, so that no input is ever refused: mutations
// reach the code under test instead of this parser.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace causeway::fuzz {

struct Frame {
  uint8_t kind = 0;
  std::string bytes;
};

// At most `max` frames; what follows is ignored.
std::vector<Frame> SplitFrames(absl::string_view input, size_t max = 256);
void AppendFrame(uint8_t kind, absl::string_view bytes, std::string* out);
std::string JoinFrames(const std::vector<Frame>& frames);

}  // namespace causeway::fuzz
