// Epochs as a step machine: who is in, what all have confirmed, when one ends and the next begins.
//
//   a member:  away --Join--> opening --Opened--> in --Lost--> away
//                                |  not opened, or too late: GiveUp, answered by Lost
//
//   an epoch:  fresh --Launched--> used --a member lost, a launch failed or never started-->
//              FailLaunches, Abort and Open of the next one, which is fresh
//
// A fresh epoch has no collectives that a loss could have poisoned: it goes on with the members that
// are left, who learn of each other (SetNodes). A used one ends for all of them, since a collective
// whose peer is gone hangs, and XLA remembers a failed set of devices for good.
//
// What happens comes in through the methods, with the time where it matters; what is to be done goes
// out through EpochHost, in order and within the call. So the same events always give the same
// actions: testdata/epochs holds them as text.
//
// Thread safety: none; it belongs to the controller and is touched under its lock only.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "causeway/base/strong_id.h"
#include "causeway/core/status_source.h"

namespace causeway::core {

// To be given back by Epochs::Fired when its time has come.
struct EpochTimer {
  enum class Kind {
    kPeerFailure,  // the cause of a failure that only says "my peer went away" should be here
    kOpening,      // members should be in the epoch
  };
  Kind kind = Kind::kPeerFailure;
  EpochId epoch;
  absl::Status cause;  // of kPeerFailure, unless a better one comes
};

// What the machine needs done. Nothing here may call back into it, but for GiveUp.
class EpochHost {
 public:
  virtual ~EpochHost() = default;
  // A node id that the member's process never had; an error says that it has had all.
  virtual absl::StatusOr<int> NewNode(WorkerId member) = 0;
  // Every member confirmed the launch, and all before it that it took part in.
  virtual void Confirmed(LaunchSeq seq) = 0;
  // No launch so far that was not confirmed will ever be.
  virtual void FailLaunches(const absl::Status& cause) = 0;
  // `epoch` is over on these members, and `next` follows.
  virtual void Abort(EpochId epoch, EpochId next, absl::Span<const WorkerId> members,
                     const absl::Status& cause) = 0;
  // These members enter `epoch`, each under its node id.
  virtual void Open(EpochId epoch, absl::Span<const WorkerId> members) = 0;
  // These members learn who else is in the epoch: at once when somebody has left, otherwise before
  // they need to know.
  virtual void SetNodes(EpochId epoch, absl::Span<const WorkerId> members, bool left) = 0;
  // These members all could start the launch: they may.
  virtual void Proceed(EpochId epoch, LaunchSeq seq, absl::Span<const WorkerId> members) = 0;
  virtual void SliceLost(int slice, WorkerId member, const absl::Status& cause) = 0;
  // After a loss the whole slice is in the epoch again.
  virtual void SliceBack(int slice, WorkerId member) = 0;
  virtual void SetTimer(EpochTimer timer, absl::Duration after) = 0;
  // The member's process is of no use any more. To be answered by Lost, also at once.
  virtual void GiveUp(WorkerId member, const std::string& why) = 0;
};

struct EpochOptions {
  std::vector<int> slices;  // of each place
  // A failure that only says "my peer went away" waits this long for its true cause.
  absl::Duration peer_failure_grace = absl::Milliseconds(300);
  // How long a launch may stand still because a living member does not start it while another waits
  // inside it; infinite: for ever.
  absl::Duration launch_start_max = absl::Minutes(10);
  // How long a member may take to enter an epoch.
  absl::Duration open_max = absl::Minutes(2);
};

class Epochs {
 public:
  // The host must outlive the machine.
  Epochs(EpochOptions options, EpochHost* host);

  // ---- events
  // A process takes an empty place, under a node id that it never had.
  void Join(WorkerId place, Incarnation incarnation, int node, absl::Time now);
  void Lost(WorkerId member, const absl::Status& cause, absl::Time now);
  // A launch over several members goes out; returns its place in the one order of all launches.
  LaunchSeq Launched(absl::Span<const WorkerId> members);
  // All launches of the epoch up to `seq` that it takes part in succeeded on the member.
  void Confirmed(WorkerId member, EpochId epoch, LaunchSeq seq, absl::Time now);
  void LaunchFailed(WorkerId member, EpochId epoch, const absl::Status& status, bool peer_failure,
                    absl::Time now);
  // The member could start the first launch of a binding; the last one lets all of them go.
  void AtRendezvous(WorkerId member, EpochId epoch, LaunchSeq seq);
  // How long the member's steps into an epoch took.
  struct OpenTimes {
    absl::Duration drain, client, adopt;
  };
  void Opened(WorkerId member, EpochId epoch, const absl::Status& status, const OpenTimes& times,
              absl::Time now);
  // How far the member's launches are, as of its latest heartbeat.
  struct Progress {
    EpochId epoch;
    LaunchSeq admitted;     // the latest that was started there
    LaunchSeq waiting;      // the next one, if it cannot start; 0 = none
    std::string waits_for;  // in words
  };
  void Reported(WorkerId member, Progress progress);
  // To be called with every heartbeat: ends the epoch, naming who is missing, when a launch has
  // stood still for too long.
  void Watch(absl::Time now);
  void Fired(const EpochTimer& timer, absl::Time now);

  // ---- state
  EpochId epoch() const { return epoch_; }
  // The place that this life of a process holds; none when it holds none any more.
  std::optional<WorkerId> PlaceOf(Incarnation incarnation) const;
  bool alive(WorkerId member) const { return At(member).alive; }
  // It is alive and its XLA client of the current epoch is up.
  bool in(WorkerId member) const { return At(member).in; }
  bool complete() const;
  // Coordination node id in this epoch; 0 = not a member.
  int node(WorkerId member) const { return At(member).node; }
  int64_t unconfirmed(WorkerId member) const {
    return static_cast<int64_t>(At(member).pending.size());
  }
  // The newest change after a failure; `begun` is left to who knows wall time.
  const RecoveryStatus& recovery() const { return recovery_; }

 private:
  struct Member {
    int slice = 0;
    bool alive = false;
    bool in = false;
    Incarnation incarnation;
    int node = 0;
    absl::Time asked;               // to open the epoch
    std::deque<LaunchSeq> pending;  // launches that it has not confirmed, in order
    Progress progress;
  };
  // First launches whose members wait for each other: who has come.
  struct Meeting {
    size_t members = 0;
    std::vector<WorkerId> here;
  };
  // Launches that a member has not started while another is inside: who, and since when.
  struct Missing {
    WorkerId member;
    absl::Time since;
  };

  Member& At(WorkerId member);
  const Member& At(WorkerId member) const;
  bool TakesPart(const Member& member, LaunchSeq seq) const;
  std::vector<WorkerId> Living() const;
  void Change(const absl::Status& cause, absl::Time now);
  void AwaitOpening(absl::Span<const WorkerId> members, absl::Time now);
  void NoteOpened(const OpenTimes& times, absl::Time now);
  void NoteWholeSlice(WorkerId member);

  const EpochOptions options_;
  EpochHost* const host_;
  std::vector<Member> members_;  // by place
  absl::flat_hash_map<Incarnation, WorkerId> places_;
  EpochId epoch_{1};
  uint64_t next_seq_ = 1;
  uint64_t epoch_first_seq_ = 1;
  // Members that have not confirmed, by launch, from due_first_ on.
  std::deque<int> due_;
  uint64_t due_first_ = 1;
  EpochId grace_;  // the epoch whose failure waits for its cause
  absl::flat_hash_map<LaunchSeq, Meeting> meetings_;
  std::map<LaunchSeq, Missing> missing_;
  std::set<int> lost_slices_;  // since then not whole again
  RecoveryStatus recovery_;
  absl::Time recovery_begun_;
};

}  // namespace causeway::core
