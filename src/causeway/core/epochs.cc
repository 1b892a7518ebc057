// The steps of an epoch: joining, confirming, failing, changing, opening.
#include "causeway/core/epochs.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/check.h"
#include "causeway/base/probes.h"

namespace causeway::core {

Epochs::Epochs(EpochOptions options, EpochHost* host)
    : options_(std::move(options)), host_(host), members_(options_.slices.size()) {
  for (size_t i = 0; i < members_.size(); ++i) members_[i].slice = options_.slices[i];
}

Epochs::Member& Epochs::At(WorkerId member) {
  CHECK(member.value() >= 0 && static_cast<size_t>(member.value()) < members_.size()) << member;
  return members_[static_cast<size_t>(member.value())];
}

const Epochs::Member& Epochs::At(WorkerId member) const {
  return const_cast<Epochs*>(this)->At(member);
}

std::vector<WorkerId> Epochs::Living() const {
  std::vector<WorkerId> living;
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i].alive) living.push_back(WorkerId(static_cast<int32_t>(i)));
  }
  return living;
}

std::optional<WorkerId> Epochs::PlaceOf(Incarnation incarnation) const {
  const auto it = places_.find(incarnation);
  if (it == places_.end()) return std::nullopt;
  return it->second;
}

bool Epochs::complete() const {
  return std::all_of(members_.begin(), members_.end(), [](const Member& m) { return m.in; });
}

// ---------------------------------------------------------------- membership

void Epochs::Join(WorkerId place, Incarnation incarnation, int node, absl::Time now) {
  Member& member = At(place);
  CHECK(!member.alive) << "place " << place;
  const std::vector<WorkerId> others = Living();
  member = Member{.slice = member.slice, .alive = true, .incarnation = incarnation, .node = node};
  places_[incarnation] = place;
  host_->Open(epoch_, {place});
  AwaitOpening({place}, now);
  if (!others.empty()) host_->SetNodes(epoch_, others, /*left=*/false);
}

void Epochs::Lost(WorkerId place, const absl::Status& cause, absl::Time now) {
  Member& member = At(place);
  CHECK(member.alive) << "place " << place;
  member.alive = member.in = false;
  member.node = 0;
  places_.erase(member.incarnation);
  lost_slices_.insert(member.slice);
  host_->SliceLost(member.slice, place, cause);
  Change(cause, now);
}

void Epochs::AwaitOpening(absl::Span<const WorkerId> members, absl::Time now) {
  for (WorkerId member : members) At(member).asked = now;
  host_->SetTimer({EpochTimer::Kind::kOpening, epoch_, {}}, options_.open_max);
}

void Epochs::Opened(WorkerId place, EpochId epoch, const absl::Status& status,
                    const OpenTimes& times, absl::Time now) {
  Member& member = At(place);
  if (!member.alive) return;
  if (!status.ok()) {
    REACHED("epochs.not_opened");
    host_->GiveUp(place, absl::StrCat("it could not enter epoch ", epoch.value(), ": ",
                                      status.message()));
    return;
  }
  if (epoch != epoch_) return;
  member.in = true;
  if (recovery_.epoch == epoch) NoteOpened(times, now);
  NoteWholeSlice(place);
}

void Epochs::NoteOpened(const OpenTimes& times, absl::Time now) {
  if (recovery_.opened != absl::Duration()) return;
  recovery_.drain = std::max(recovery_.drain, times.drain);
  recovery_.client = std::max(recovery_.client, times.client);
  recovery_.adopt = std::max(recovery_.adopt, times.adopt);
  for (const Member& member : members_) {
    if (member.alive && !member.in) return;
  }
  recovery_.opened = now - recovery_begun_;
}

void Epochs::NoteWholeSlice(WorkerId place) {
  const int slice = At(place).slice;
  if (!lost_slices_.contains(slice)) return;
  for (const Member& member : members_) {
    if (member.slice == slice && !member.in) return;
  }
  lost_slices_.erase(slice);
  host_->SliceBack(slice, place);
}

// ---------------------------------------------------------------- launches

LaunchSeq Epochs::Launched(absl::Span<const WorkerId> members) {
  const LaunchSeq seq(next_seq_++);
  due_.push_back(static_cast<int>(members.size()));
  for (WorkerId member : members) At(member).pending.push_back(seq);
  return seq;
}

void Epochs::Confirmed(WorkerId place, EpochId epoch, LaunchSeq seq, absl::Time now) {
  if (epoch != epoch_) return;
  std::deque<LaunchSeq>& pending = At(place).pending;
  const LaunchSeq last(seq.value() + (PLANTED("epochs.confirms_one_too_many") ? 1 : 0));
  while (!pending.empty() && pending.front() <= last) {
    const LaunchSeq confirmed = pending.front();
    pending.pop_front();
    if (--due_[confirmed.value() - due_first_] > 0) continue;
    host_->Confirmed(confirmed);
    if (recovery_.epoch == epoch_ && recovery_.launched == absl::Duration()) {
      recovery_.launched = now - recovery_begun_;
    }
  }
  for (; !due_.empty() && due_.front() == 0; ++due_first_) due_.pop_front();
}

void Epochs::LaunchFailed(WorkerId place, EpochId epoch, const absl::Status& status,
                          bool peer_failure, absl::Time now) {
  if (epoch != epoch_) {
    REACHED("epochs.failure_of_an_older_epoch");
    return;
  }
  const std::string text = absl::StrCat("a launch over several workers failed on worker ",
                                        place.value(), ": ", status.message());
  if (!peer_failure) {
    Change(absl::Status(status.code(), text), now);
    return;
  }
  // Somebody else is the cause; give its own report a moment to arrive.
  if (grace_ == epoch_) return;
  grace_ = epoch_;
  host_->SetTimer({EpochTimer::Kind::kPeerFailure, epoch_, absl::DataLossError(text)},
                  options_.peer_failure_grace);
}

bool Epochs::TakesPart(const Member& member, LaunchSeq seq) const {
  return std::binary_search(member.pending.begin(), member.pending.end(), seq);
}

void Epochs::AtRendezvous(WorkerId place, EpochId epoch, LaunchSeq seq) {
  if (epoch != epoch_ || !TakesPart(At(place), seq)) return;
  Meeting& meeting = meetings_[seq];
  if (meeting.here.empty()) {
    meeting.members = static_cast<size_t>(std::count_if(
        members_.begin(), members_.end(), [&](const Member& m) { return TakesPart(m, seq); }));
  }
  std::vector<WorkerId>& here = meeting.here;
  if (std::find(here.begin(), here.end(), place) != here.end()) return;
  here.push_back(place);
  if (here.size() < meeting.members) return;
  host_->Proceed(epoch_, seq, here);
  meetings_.erase(seq);
}

// ---------------------------------------------------------------- from one to the next

void Epochs::Change(const absl::Status& cause, absl::Time now) {
  for (Member& member : members_) member.pending.clear();
  due_.clear();
  due_first_ = next_seq_;
  meetings_.clear();
  missing_.clear();
  host_->FailLaunches(cause);
  std::vector<WorkerId> living = Living();
  if (epoch_first_seq_ == next_seq_) {
    REACHED("epochs.without_launches");
    if (!living.empty()) host_->SetNodes(epoch_, living, /*left=*/true);
    return;
  }
  const EpochId old = epoch_;
  epoch_ = EpochId(old.value() + 1);
  epoch_first_seq_ = next_seq_;
  recovery_ = {.epoch = epoch_, .cause = std::string(cause.message())};
  recovery_begun_ = now;
  host_->Abort(old, epoch_, living, cause);
  std::vector<WorkerId> entering;
  std::vector<std::pair<WorkerId, std::string>> useless;
  for (WorkerId place : living) {
    Member& member = At(place);
    member.in = false;
    const absl::StatusOr<int> node = host_->NewNode(place);
    member.node = node.ok() ? *node : 0;
    if (node.ok()) {
      entering.push_back(place);
    } else {
      REACHED("epochs.node_ids_used_up");
      useless.emplace_back(place, std::string(node.status().message()));
    }
  }
  if (!entering.empty()) {
    host_->Open(epoch_, entering);
    AwaitOpening(entering, now);
  }
  for (const auto& [place, why] : useless) host_->GiveUp(place, why);
}

void Epochs::Fired(const EpochTimer& timer, absl::Time now) {
  if (timer.epoch != epoch_) return;
  if (timer.kind == EpochTimer::Kind::kPeerFailure) {
    REACHED("epochs.peer_failure_without_a_cause");
    Change(timer.cause, now);
    return;
  }
  for (WorkerId place : Living()) {
    const Member& member = At(place);
    // The first one's end may have begun another epoch, or let a spare in.
    if (timer.epoch != epoch_ || !member.alive || member.in) continue;
    if (now - member.asked < options_.open_max) continue;
    REACHED("epochs.opened_too_late");
    host_->GiveUp(place, absl::StrCat("it did not enter epoch ", epoch_.value(), " within ",
                                      absl::FormatDuration(options_.open_max)));
  }
}

}  // namespace causeway::core
