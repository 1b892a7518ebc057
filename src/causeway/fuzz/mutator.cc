// Mutation of inputs frame by frame.
#include "causeway/fuzz/mutator.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace causeway::fuzz {
namespace {

void MutateFrame(const Target& target, Frame* frame, Random& random, const ByteMutator& bytes) {
  const google::protobuf::Message* prototype = target.Prototype(frame->kind);
  // Now and then the bytes of a message are broken on purpose.
  if (prototype == nullptr || random.Below(16) == 0) return bytes(&frame->bytes);
  std::unique_ptr<google::protobuf::Message> message(prototype->New());
  if (!message->ParseFromString(frame->bytes)) return bytes(&frame->bytes);
  MutateMessage(message.get(), random, bytes);
  message->SerializeToString(&frame->bytes);
}

void MutateList(const Target& target, std::vector<Frame>* frames, Random& random) {
  const size_t i = random.Below(frames->size());
  const size_t j = random.Below(frames->size());
  switch (random.Below(6)) {
    case 0:
      frames->erase(frames->begin() + i);
      break;
    case 1:
      frames->insert(frames->begin() + j, Frame((*frames)[i]));
      break;
    case 2:
      std::swap((*frames)[i], (*frames)[j]);
      break;
    case 3:  // a run of frames once more
      frames->insert(frames->begin() + std::max(i, j), frames->begin() + std::min(i, j),
                     frames->begin() + std::min(frames->size(), std::min(i, j) + 4));
      break;
    case 4:
      frames->insert(frames->begin() + i,
                     Frame{static_cast<uint8_t>(random.Below(target.num_kinds())),
                           std::string(random.Below(5), static_cast<char>(random.Next()))});
      break;
    default:
      (*frames)[i].kind = static_cast<uint8_t>(random.Below(target.num_kinds()));
  }
}

}  // namespace

ByteMutator SimpleBytes(Random& random) {
  return [&random](std::string* text) {
    if (text->empty() || random.Below(8) == 0) {
      text->insert(random.Below(text->size() + 1), 1, static_cast<char>(random.Next()));
      return;
    }
    const size_t i = random.Below(text->size());
    switch (random.Below(4)) {
      case 0:
        (*text)[i] = static_cast<char>(random.Next());
        break;
      case 1:
        (*text)[i] = static_cast<char>((*text)[i] ^ (1 << random.Below(8)));
        break;
      case 2:
        text->erase(i, 1 + random.Below(text->size() - i));
        break;
      default:
        text->insert(i, text->substr(i, 1 + random.Below(std::min<size_t>(16, text->size() - i))));
    }
  };
}

std::string MutateInput(absl::string_view input, const Target& target, Random& random,
                        const ByteMutator& bytes) {
  std::vector<Frame> frames = SplitFrames(input);
  for (uint64_t left = 1 + random.Below(4); left > 0; --left) {
    if (frames.empty()) frames.push_back({static_cast<uint8_t>(random.Below(target.num_kinds())), ""});
    if (random.Below(4) == 0) {
      MutateList(target, &frames, random);
    } else {
      MutateFrame(target, &frames[random.Below(frames.size())], random, bytes);
    }
  }
  return JoinFrames(frames);
}

std::string CrossInputs(absl::string_view a, absl::string_view b, Random& random) {
  std::vector<Frame> first = SplitFrames(a);
  std::vector<Frame> second = SplitFrames(b);
  first.resize(random.Below(first.size() + 1));
  const size_t from = random.Below(second.size() + 1);
  first.insert(first.end(), second.begin() + from, second.end());
  return JoinFrames(first);
}

}  // namespace causeway::fuzz
