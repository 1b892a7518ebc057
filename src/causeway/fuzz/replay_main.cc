// Runs a target without libFuzzer: every seed of a folder, then changed ones from a fixed seed.
//
//   fuzz_x_replay SEEDS [MUTATIONS]     MUTATIONS inputs in all; the same ones every time
//   fuzz_x_replay INPUT                 one input, whatever it holds
//
// Seeds that cannot be read any more fail: they would let the tests pass and test nothing.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "causeway/base/random.h"
#include "causeway/fuzz/frames.h"
#include "causeway/fuzz/mutator.h"
#include "causeway/fuzz/target.h"
#include "google/protobuf/message.h"

namespace {

// How many frames do not hold the message that their kind asks for.
size_t Unreadable(const std::vector<causeway::fuzz::Frame>& frames) {
  return std::count_if(frames.begin(), frames.end(), [](const causeway::fuzz::Frame& frame) {
    const google::protobuf::Message* prototype =
        causeway::fuzz::TheTarget().Prototype(frame.kind);
    if (prototype == nullptr) return false;
    const std::unique_ptr<google::protobuf::Message> message(prototype->New());
    return !message->ParseFromString(frame.bytes);
  });
}

}  // namespace

int main(int argc, char** argv) {
  namespace fuzz = causeway::fuzz;
  int64_t mutations = 0;
  if (argc < 2 || (argc > 2 && !absl::SimpleAtoi(argv[2], &mutations))) {
    std::fprintf(stderr, "usage: %s SEEDS [MUTATIONS]\n", argv[0]);
    return 2;
  }
  fuzz::QuietLibraries();
  std::vector<std::filesystem::path> paths;
  const bool is_folder = std::filesystem::is_directory(argv[1]);
  if (!is_folder) {
    paths.push_back(argv[1]);
  } else {
    for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
      if (entry.is_regular_file()) paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  if (paths.empty()) {
    std::fprintf(stderr, "%s has no seeds\n", argv[1]);
    return 1;
  }
  std::vector<std::string> seeds;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "cannot read %s\n", path.c_str());
      return 1;
    }
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    const std::vector<fuzz::Frame> frames = fuzz::SplitFrames(seeds.back());
    if (const size_t lost = Unreadable(frames); lost > 0 && is_folder) {
      std::fprintf(stderr,
                   "%s: %zu of %zu frames hold no message of their kind any more, so they test "
                   "nothing; record new seeds (tools/fuzz_seeds.py)\n",
                   path.c_str(), lost, frames.size());
      return 1;
    }
    fuzz::TheTarget().Run(frames);
  }
  causeway::FakeRandom random(1);
  const fuzz::ByteMutator bytes = fuzz::SimpleBytes(random);
  for (int64_t i = 0; i < mutations; ++i) {
    std::string input = seeds[random.Below(seeds.size())];
    if (random.Below(4) == 0) {
      input = fuzz::CrossInputs(input, seeds[random.Below(seeds.size())], random);
    }
    for (uint64_t n = 1 + random.Below(3); n > 0; --n) {
      input = fuzz::MutateInput(input, fuzz::TheTarget(), random, bytes);
    }
    fuzz::TheTarget().Run(fuzz::SplitFrames(input));
  }
  std::printf("%zu seeds and %lld changed ones ran\n", seeds.size(),
              static_cast<long long>(mutations));
  return 0;
}
