// Arithmetic and excuses.
#include "causeway/sim/model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace causeway::sim {

void Lineage::Needs(const World& world, int worker) {
  // A place that is empty now counts as lost since.
  const Since now{world.losses[worker] - (world.down[worker] ? 1 : 0), world.troubles[worker]};
  const auto [it, fresh] = workers_.try_emplace(worker, now);
  if (!fresh) {
    it->second.losses = std::min(it->second.losses, now.losses);
    it->second.troubles = std::min(it->second.troubles, now.troubles);
  }
}

void Lineage::NeedsEpoch(const World& world) {
  if (aborts_ < 0) aborts_ = world.aborts;
}

void Lineage::Merge(const Lineage& other) {
  for (const auto& [worker, since] : other.workers_) {
    const auto [it, fresh] = workers_.try_emplace(worker, since);
    if (fresh) continue;
    it->second.losses = std::min(it->second.losses, since.losses);
    it->second.troubles = std::min(it->second.troubles, since.troubles);
  }
  if (other.aborts_ >= 0) aborts_ = aborts_ < 0 ? other.aborts_ : std::min(aborts_, other.aborts_);
}

Lineage Lineage::Confirmed(const std::vector<int>& holders) const {
  Lineage out;
  for (const int worker : holders) {
    const auto it = workers_.find(worker);
    if (it == workers_.end()) continue;
    // What ran out of memory had no value.
    out.workers_[worker] = {it->second.losses, 1 << 30};
  }
  return out;
}

bool Lineage::Shaken(const World& world) const {
  if (aborts_ >= 0 && world.aborts > aborts_) return true;
  return std::any_of(workers_.begin(), workers_.end(), [&world](const auto& entry) {
    return world.losses[entry.first] > entry.second.losses ||
           world.troubles[entry.first] > entry.second.troubles;
  });
}

std::string Lineage::Judge(const World& world, const absl::Status& error) const {
  const std::string text = error.ToString();
  const bool aborted = aborts_ >= 0 && world.aborts > aborts_;
  bool lost = false, troubled = false;
  for (const auto& [worker, since] : workers_) {
    lost |= world.losses[worker] > since.losses;
    troubled |= world.troubles[worker] > since.troubles;
  }
  const bool injected = absl::StrContains(text, "sim: no memory") ||
                        absl::StrContains(text, "sim: the device") ||
                        absl::StrContains(text, "fault injection") ||
                        absl::StrContains(text, "the head has to send launches in growing order");
  switch (error.code()) {
    case absl::StatusCode::kDataLoss:
      if (!lost && !aborted) return absl::StrCat("nothing was lost, yet: ", text);
      break;
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kInternal:
      if (!injected || (!troubled && !aborted)) {
        return absl::StrCat("no such trouble was made: ", text);
      }
      break;
    case absl::StatusCode::kDeadlineExceeded:
      // Either the launch that needed it stood still, or the transfer itself was given up. A launch
      // that trades places with its successor stands still when none comes.
      if (world.lost_transfers == 0 && !world.plan.swaps()) {
        return absl::StrCat("no bytes were lost: ", text);
      }
      if (!absl::StrContains(text, "did not arrive") &&
          !(aborted && absl::StrContains(text, "has not started launch"))) {
        return absl::StrCat("waited for something else: ", text);
      }
      break;
    default:
      return absl::StrCat("not an error of the runtime's: ", text);
  }
  // The cause that is named has to be a cause.
  const size_t at = text.find("lost: worker ");
  if (at != std::string::npos) {
    const int named = std::atoi(text.c_str() + at + 13);
    const auto it = workers_.find(named);
    // An epoch may have ended by the loss of one that this value needs for another reason, later.
    const int since = aborted || it == workers_.end() ? 0 : it->second.losses;
    if (named < 0 || named >= static_cast<int>(world.losses.size()) ||
        world.losses[named] <= since) {
      return absl::StrCat("worker ", named, " was not lost: ", text);
    }
  }
  return "";
}

bool ModelArray::deleted() const {
  return std::any_of(deleted_marks.begin(), deleted_marks.end(), [](const auto& m) { return *m; });
}

void ModelArray::MarkDeleted() {
  for (const auto& mark : deleted_marks) *mark = true;
}

bool ModelArray::uniform() const {
  return std::all_of(values.begin(), values.end(),
                     [this](const auto& shard) { return shard == values[0]; });
}

double ModelArray::largest() const {
  double most = 0;
  for (const auto& shard : values) {
    for (const double v : shard) most = std::max(most, std::fabs(v));
  }
  return most;
}

std::string ModelProgram::Text(int length) const {
  const std::string out = absl::StrCat("out f64[", length, "] ");
  const std::string c = absl::StrCat(constant);
  switch (kind) {
    case Kind::kAdd:
      return absl::StrCat("fake add; inputs 1; addc 0 ", c, "; ", out, "1");
    case Kind::kScale:
      return absl::StrCat("fake scale; inputs 1; mulc 0 3; ", out, "1");
    case Kind::kSum:
      return absl::StrCat("fake sum; inputs 1; psum 0; addc 1 ", c, "; ", out, "2");
    case Kind::kAdd2:
      return absl::StrCat("fake add2; inputs 2; add 0 1; ", out, "2");
    case Kind::kMix:
      return absl::StrCat("fake mix; inputs 2; psum 0; add 2 1; ", out, "3");
    case Kind::kDonate:
      return absl::StrCat("fake donate; inputs 1; addc 0 ", c, "; ", out, "1; donate 0");
    case Kind::kSumDonate:
      return absl::StrCat("fake sumdonate; inputs 1; psum 0; ", out, "1; donate 0");
    case Kind::kTwo:
      return absl::StrCat("fake two; inputs 1; psum 0; addc 0 ", c, "; ", out, "1; ", out, "2");
    case Kind::kSumTwice:
      return absl::StrCat("fake twice; inputs 1; psum 0; addc 1 ", c, "; psum 2; ", out, "3");
  }
  return "";
}

std::vector<std::vector<std::vector<double>>> ModelProgram::Run(
    const std::vector<const ModelArray*>& inputs) const {
  using Shards = std::vector<std::vector<double>>;
  auto sum = [](const Shards& x) {
    std::vector<double> total(x[0].size(), 0.0);
    for (const auto& shard : x) {
      for (size_t i = 0; i < total.size(); ++i) total[i] += shard[i];
    }
    return Shards(x.size(), total);
  };
  auto plus = [](Shards x, double c) {
    for (auto& shard : x) {
      for (double& v : shard) v += c;
    }
    return x;
  };
  auto add = [](Shards x, const Shards& y) {
    for (size_t s = 0; s < x.size(); ++s) {
      for (size_t i = 0; i < x[s].size(); ++i) x[s][i] += y[s][i];
    }
    return x;
  };
  const Shards& x = inputs[0]->values;
  switch (kind) {
    case Kind::kAdd:
    case Kind::kDonate:
      return {plus(x, constant)};
    case Kind::kScale: {
      Shards out = x;
      for (auto& shard : out) {
        for (double& v : shard) v *= 3;
      }
      return {out};
    }
    case Kind::kSum:
      return {plus(sum(x), constant)};
    case Kind::kAdd2:
      return {add(x, inputs[1]->values)};
    case Kind::kMix:
      return {add(sum(x), inputs[1]->values)};
    case Kind::kSumDonate:
      return {sum(x)};
    case Kind::kTwo:
      return {sum(x), plus(x, constant)};
    case Kind::kSumTwice:
      return {sum(plus(sum(x), constant))};
  }
  return {};
}

}  // namespace causeway::sim
