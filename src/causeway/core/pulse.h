// Whether a process still answers: pings, what their answers usually take, and the verdict.
//
// A ping goes out every beat. One that stays unanswered for longer than answers use to take is
// followed by another at once, and when `missed_max` of them in a row are silent the process is
// lost. So a process that stopped is found within seconds of the next beat where answers come in
// milliseconds, and after `missed_max` beats at the latest:
//
//   deadline of one ping = mean + 8 deviations, three times the worst of late, at least kFloor,
//                          and at most one beat (also while nothing is known yet)
//
// Anything that the process says counts as life, but for the last bound: answers wait behind bytes
// that it is sending. Who comes too late to look judges nobody: answers may be waiting here.
//
// Thread safety: none; the time comes in from outside.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "absl/time/time.h"

namespace causeway::core {

class Pulse {
 public:
  // Machines with more work than cores keep a process from answering for this long.
  static constexpr absl::Duration kFloor = absl::Seconds(1);

  Pulse() : Pulse(absl::Seconds(5), 3, absl::InfinitePast()) {}
  // The first ping is due at the next multiple of `beat`, as everybody's.
  Pulse(absl::Duration beat, int missed_max, absl::Time now);

  enum class Step { kNothing, kPing, kLost };
  // To be called at next(), and as often as one likes. kPing: send ping sent(); kLost: see why().
  Step Check(absl::Time now);
  absl::Time next() const { return next_; }
  // The number of the latest ping; 0 = none yet.
  uint64_t sent() const { return sent_; }
  // The answer to ping `number`. One to a ping that was never sent, or twice, is none.
  void Answered(uint64_t number, absl::Time now);
  // The process said something.
  void Heard(absl::Time now) { heard_ = now; }

  // How long an answer may take now.
  absl::Duration deadline() const;
  std::string why() const { return why_; }

 private:
  struct Ping {
    uint64_t number;
    absl::Time at;
  };
  Step Send(absl::Time now);
  absl::Time NextBeat(absl::Time now) const;

  absl::Duration beat_;
  int missed_max_;
  uint64_t sent_ = 0;
  std::deque<Ping> silent_;  // without an answer
  absl::Time heard_ = absl::InfinitePast();
  absl::Time next_;
  bool spared_ = false;  // since the latest ping, because the look at it came too late
  int samples_ = 0;
  absl::Duration mean_, deviation_, worst_;  // of answers; the worst fades
  std::string why_;
};

}  // namespace causeway::core
