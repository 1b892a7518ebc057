// Runs a target without libFuzzer: every seed of a folder, then changed ones from a fixed seed.
//
//   fuzz_x_replay SEEDS [MUTATIONS]     MUTATIONS inputs in all; the same ones every time
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "causeway/base/random.h"
#include "causeway/fuzz/frames.h"
#include "causeway/fuzz/mutator.h"
#include "causeway/fuzz/target.h"

int main(int argc, char** argv) {
  namespace fuzz = causeway::fuzz;
  int64_t mutations = 0;
  if (argc < 2 || (argc > 2 && !absl::SimpleAtoi(argv[2], &mutations))) {
    std::fprintf(stderr, "usage: %s SEEDS [MUTATIONS]\n", argv[0]);
    return 2;
  }
  fuzz::QuietLibraries();
  std::vector<std::filesystem::path> paths;
  if (std::filesystem::is_regular_file(argv[1])) {
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
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    fuzz::TheTarget().Run(fuzz::SplitFrames(seeds.back()));
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
