// Random numbers from the system or from a seed.
#include "causeway/base/random.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "causeway/base/check.h"

namespace causeway {

uint64_t Random::Below(uint64_t bound) {
  CHECK_GT(bound, uint64_t{0});
  // Values above the last full multiple of `bound` would favour small results.
  const uint64_t rest = (std::numeric_limits<uint64_t>::max() % bound + 1) % bound;
  const uint64_t limit = std::numeric_limits<uint64_t>::max() - rest;
  uint64_t value = Next();
  while (value > limit) value = Next();
  return value % bound;
}

double Random::Unit() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }

std::string Random::Token() {
  const uint64_t high = Next();
  return absl::StrCat(absl::Hex(high, absl::kZeroPad16), absl::Hex(Next(), absl::kZeroPad16));
}

uint64_t SystemRandom::Next() {
  absl::MutexLock lock(&mu_);
  return (uint64_t{device_()} << 32) | device_();
}

// SplitMix64 (Steele, Lea, Flood 2014): every seed is good, and one addition a step.
uint64_t FakeRandom::Next() {
  absl::MutexLock lock(&mu_);
  state_ += 0x9e3779b97f4a7c15;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace causeway
