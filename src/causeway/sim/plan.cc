// The draw of a plan from its seed.
#include "causeway/sim/plan.h"

#include <algorithm>

#include "causeway/base/probes.h"

namespace causeway::sim {
namespace {

absl::Duration Between(Random& random, absl::Duration low, absl::Duration high) {
  return low + (high - low) * random.Unit();
}

bool Chance(Random& random, double p) { return random.Unit() < p; }

// A process that ends again and again as soon as it is back, and maybe spares that end too.
void AddFlapping(Random& random, absl::Time start, absl::Duration busy, Plan& plan) {
  Fault fault;
  fault.kind = Fault::Kind::kKill;
  const auto targets = static_cast<uint64_t>(plan.shape.num_workers() + plan.spares);
  fault.worker = static_cast<int>(random.Below(targets));
  fault.at = start + busy * random.Unit();
  for (uint64_t n = 3 + random.Below(4); n > 0; --n) {
    fault.lasts = Between(random, absl::Milliseconds(1), absl::Milliseconds(20));
    plan.faults.push_back(fault);
    plan.faults_end = std::max(plan.faults_end, fault.at + fault.lasts);
    fault.at += fault.lasts + Between(random, absl::ZeroDuration(), absl::Milliseconds(60));
  }
}

void AddDiskTrouble(Random& random, absl::Time start, absl::Duration busy, Plan& plan) {
  for (uint64_t n = 2 + random.Below(4); n > 0; --n) {
    Fault fault;
    fault.kind = Fault::Kind::kDisk;
    fault.at = start + busy * random.Unit();
    fault.lasts = Between(random, absl::Milliseconds(1), absl::Milliseconds(500));
    // Mostly damage, which shows only when the same program is asked for again.
    fault.factor = Chance(random, 0.6) ? 0.99 : random.Unit();
    plan.faults.push_back(fault);
    plan.faults_end = std::max(plan.faults_end, fault.at + fault.lasts);
  }
}

}  // namespace

const char* NameOf(Fault::Kind kind) {
  switch (kind) {
    case Fault::Kind::kKill:
      return "kill";
    case Fault::Kind::kVanish:
      return "vanish";
    case Fault::Kind::kPause:
      return "pause";
    case Fault::Kind::kReplace:
      return "replace";
    case Fault::Kind::kPartition:
      return "partition";
    case Fault::Kind::kPeerPartition:
      return "peer partition";
    case Fault::Kind::kSlow:
      return "slow";
    case Fault::Kind::kLoseTransfer:
      return "lose a transfer";
    case Fault::Kind::kTrouble:
      return "trouble";
    case Fault::Kind::kDisk:
      return "disk";
  }
  return "?";
}

bool Plan::swaps() const {
  return std::any_of(launch_faults.begin(), launch_faults.end(),
                     [](const worker::FaultPlan& f) { return f.swap_launch > 0; });
}

Plan MakePlan(uint64_t seed, absl::Time start) {
  FakeRandom random(seed * 0x9e3779b97f4a7c15 + 1);
  Plan plan;
  plan.seed = seed;
  plan.shape.slices = 1 + static_cast<int>(random.Below(4));
  plan.shape.hosts_per_slice = 1 + static_cast<int>(random.Below(2));
  plan.shape.devices_per_host = 1 + static_cast<int>(random.Below(2));
  const int workers = plan.shape.num_workers();
  plan.max_inflight_launches = 1 + static_cast<int>(random.Below(8));
  plan.inline_bytes_max = Chance(random, 0.5) ? 0 : 1 << 16;
  plan.chunk_bytes = Chance(random, 0.5) ? 8 : 1 << 20;
  plan.heartbeat = Chance(random, 0.5) ? absl::Seconds(1) : absl::Seconds(5);
  plan.drain_max = Chance(random, 0.3) ? absl::Seconds(2) : absl::Seconds(10);
  plan.max_programs = Chance(random, 0.2) ? 2 : 4096;
  plan.clients = 1 + static_cast<int>(random.Below(3));
  plan.operations = 15 + static_cast<int>(random.Below(60));
  plan.think_max = Chance(random, 0.3) ? absl::Microseconds(100) : absl::Milliseconds(8);
  plan.network_max = Chance(random, 0.5) ? absl::Microseconds(200) : absl::Milliseconds(20);
  plan.compute_max = Chance(random, 0.5) ? absl::Microseconds(100) : absl::Milliseconds(10);

  std::vector<DeviceId> all;
  for (int d = 0; d < plan.shape.num_devices(); ++d) all.push_back(DeviceId(d));
  plan.lists.push_back(all);
  for (int w = 0; w < workers && w < 3; ++w) {
    std::vector<DeviceId> local;
    for (int k = 0; k < plan.shape.devices_per_host; ++k) {
      local.push_back(DeviceId(w * plan.shape.devices_per_host + k));
    }
    plan.lists.push_back(std::move(local));
  }
  for (int n = 0; n < 3; ++n) {
    std::vector<DeviceId> some = all;
    for (size_t i = some.size(); i > 1; --i) std::swap(some[i - 1], some[random.Below(i)]);
    some.resize(1 + random.Below(some.size()));
    plan.lists.push_back(std::move(some));
  }
  std::sort(plan.lists.begin() + 1, plan.lists.end());
  plan.lists.erase(std::unique(plan.lists.begin() + 1, plan.lists.end()), plan.lists.end());

  plan.launch_faults.resize(static_cast<size_t>(workers));
  plan.faults_end = start;
  if (Chance(random, 0.1)) return plan;  // a calm day

  const absl::Duration busy =
      std::max(absl::Milliseconds(20), plan.think_max * plan.operations * 0.7);
  const int count = static_cast<int>(random.Below(5));
  for (int n = 0; n < count; ++n) {
    Fault fault;
    fault.at = start + busy * random.Unit();
    fault.worker = static_cast<int>(random.Below(static_cast<uint64_t>(workers)));
    const uint64_t draw = random.Below(100);
    using Kind = Fault::Kind;
    fault.kind = draw < 30   ? Kind::kKill
                 : draw < 40 ? Kind::kVanish
                 : draw < 55 ? Kind::kPause
                 : draw < 70 ? Kind::kPartition
                 : draw < 75 ? Kind::kPeerPartition
                 : draw < 84 ? Kind::kSlow
                 : draw < 88 ? Kind::kLoseTransfer
                             : Kind::kTrouble;
    // Short ones heal by themselves, long ones are taken for a death.
    fault.lasts = Chance(random, 0.5)
                      ? Between(random, absl::Milliseconds(1), absl::Milliseconds(500))
                      : Between(random, absl::Seconds(1), absl::Seconds(40));
    fault.factor = 2 + 100 * random.Unit();
    if (fault.kind == Kind::kKill || fault.kind == Kind::kVanish) {
      // How long the supervisor takes to start another one.
      fault.lasts = Between(random, absl::Milliseconds(1), absl::Seconds(5));
    }
    plan.faults.push_back(fault);
    if (fault.kind == Kind::kPause && fault.lasts > absl::Seconds(20) && Chance(random, 0.5)) {
      Fault replace = fault;
      replace.kind = Kind::kReplace;
      replace.at += absl::Seconds(17);
      plan.faults.push_back(replace);
    }
    plan.faults_end = std::max(plan.faults_end, fault.at + fault.lasts);
    // Two at once, and a loss while the last one is still being dealt with.
    if (Chance(random, 0.3)) {
      fault.worker = static_cast<int>(random.Below(static_cast<uint64_t>(workers)));
      fault.kind = Chance(random, 0.5) ? Kind::kKill : Kind::kVanish;
      fault.at += Between(random, absl::ZeroDuration(), absl::Milliseconds(30));
      plan.faults.push_back(fault);
      plan.faults_end = std::max(plan.faults_end, fault.at + fault.lasts);
    }
  }
  for (worker::FaultPlan& faults : plan.launch_faults) {
    if (!Chance(random, 0.15)) continue;
    const auto nth = static_cast<int64_t>(1 + random.Below(20));
    const uint64_t draw = random.Below(3);
    (draw == 0 ? faults.skip_launch : draw == 1 ? faults.swap_launch : faults.oom_launch) = nth;
  }
  for (const std::string& mark : FaultPointMarks()) {
    if (Chance(random, 0.25)) plan.fault_points.insert(mark);
  }
  if (Chance(random, 0.3)) plan.spares = 1 + static_cast<int>(random.Below(2));
  if (Chance(random, 0.12)) AddFlapping(random, start, busy, plan);
  plan.disk = Chance(random, 0.4);
  // A head that forgets programs needs its disk.
  if (plan.disk && Chance(random, 0.6)) plan.max_programs = 2;
  if (plan.disk && Chance(random, 0.6)) AddDiskTrouble(random, start, busy, plan);
  std::stable_sort(plan.faults.begin(), plan.faults.end(),
                   [](const Fault& a, const Fault& b) { return a.at < b.at; });
  return plan;
}

}  // namespace causeway::sim
