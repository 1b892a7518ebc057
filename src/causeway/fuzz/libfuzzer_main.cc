// libFuzzer's entry points: the target's input, and mutations that keep its structure.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/strings/string_view.h"
#include "causeway/base/random.h"
#include "causeway/fuzz/frames.h"
#include "causeway/fuzz/mutator.h"
#include "causeway/fuzz/target.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

absl::string_view Text(const uint8_t* data, size_t size) {
  return absl::string_view(reinterpret_cast<const char*>(data), size);
}

size_t Store(const std::string& input, uint8_t* out, size_t max_size) {
  const size_t size = std::min(input.size(), max_size);
  std::memcpy(out, input.data(), size);
  return size;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  causeway::fuzz::QuietLibraries();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  causeway::fuzz::TheTarget().Run(causeway::fuzz::SplitFrames(Text(data, size)));
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
  causeway::FakeRandom random(seed);
  const auto bytes = [](std::string* text) {
    const size_t old = text->size();
    text->resize(old + 16);
    text->resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(text->data()), old, text->size()));
  };
  return Store(causeway::fuzz::MutateInput(Text(data, size), causeway::fuzz::TheTarget(), random,
                                           bytes),
               data, max_size);
}

extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t* a, size_t a_size, const uint8_t* b,
                                            size_t b_size, uint8_t* out, size_t max_size,
                                            unsigned int seed) {
  causeway::FakeRandom random(seed);
  return Store(causeway::fuzz::CrossInputs(Text(a, a_size), Text(b, b_size), random), out,
               max_size);
}
