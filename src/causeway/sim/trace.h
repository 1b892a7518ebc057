// What happened in a simulation, line by line; the same seed gives the same bytes.
#pragma once

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"

namespace causeway::sim {

class Trace {
 public:
  // Nothing is formatted or kept unless `on`.
  explicit Trace(bool on) : on_(on) {}
  bool on() const { return on_; }
  template <class... Parts>
  void Line(absl::Time now, const Parts&... parts) {
    if (!on_) return;
    const int64_t us = absl::ToUnixMicros(now) - 1'700'000'000'000'000;
    absl::StrAppendFormat(&text_, "%10d.%06d  ", us / 1'000'000, us % 1'000'000);
    absl::StrAppend(&text_, parts..., "\n");
  }
  const std::string& text() const { return text_; }

 private:
  const bool on_;
  std::string text_;
};

}  // namespace causeway::sim
