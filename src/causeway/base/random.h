// The random seam: secrets from the system in production, a seeded sequence in tests.
//
// Thread safety: all methods are thread-safe.
#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace causeway {

class Random {
 public:
  virtual ~Random() = default;
  // Uniform over all 64-bit values.
  virtual uint64_t Next() = 0;
  // Uniform over [0, bound). CHECKs bound > 0.
  uint64_t Below(uint64_t bound);
  // Uniform over [0, 1).
  double Unit();
  // 32 lower-case hexadecimal digits; not to be guessed when the source is the system's.
  std::string Token();
};

// The operating system's entropy: fit for secrets.
class SystemRandom : public Random {
 public:
  uint64_t Next() override;

 private:
  absl::Mutex mu_;
  std::random_device device_ ABSL_GUARDED_BY(mu_);
};

// The same seed gives the same sequence, on every machine.
class FakeRandom : public Random {
 public:
  explicit FakeRandom(uint64_t seed) : state_(seed) {}
  uint64_t Next() override;

 private:
  absl::Mutex mu_;
  uint64_t state_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway
