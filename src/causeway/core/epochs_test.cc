// Tests of the epoch machine by text: testdata/epochs/*.txt hold events and the actions they cause.
//
//   slices 0 1 1                         the slice of each place; the first line
//   join 1 life 7                        place 1 is taken by the process with incarnation 7
//   opened 7 epoch 1 [drain 4ms] [client 20ms]         not opened 7 epoch 1: why
//   launch 0 1                           a launch over places 0 and 1 goes out
//   confirmed 7 epoch 1 launch 3         arrived 7 epoch 1 launch 3 (at the rendezvous)
//   failed 7 epoch 1: out of memory      peer failed 7 epoch 1: connection closed
//   lost 7: killed                       no nodes for 1 (from now on)
//   report 7 epoch 1 admitted 3 [waiting 4: for what]       watch (as with every heartbeat)
//   pass 300ms                           time goes by, and timers fire
//   > ACTION                             what an event causes, all of it and in this order
//   = epoch 2 | complete | not complete | place of 7 is 1 | in 1 | opened 30ms | launched 42ms ...
#include "causeway/core/epochs.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"

namespace causeway::core {
namespace {

class Script : public EpochHost {
 public:
  // The script as it would have to read: with the actions and the state that there really are.
  std::string Run(const std::vector<std::string>& lines) {
    std::string out;
    for (const std::string& line : lines) {
      if (line.empty() || line[0] == '#') {
        absl::StrAppend(&out, line, "\n");
      } else if (line[0] == '=') {
        absl::StrAppend(&out, "= ", State(line.substr(2)), "\n");
      } else if (line[0] != '>') {
        absl::StrAppend(&out, line, "\n");
        actions_.clear();
        Event(line);
        for (const std::string& action : actions_) absl::StrAppend(&out, "> ", action, "\n");
      }
    }
    return out;
  }

  absl::StatusOr<int> NewNode(WorkerId member) override {
    if (no_nodes_.contains(member)) return absl::ResourceExhaustedError("it has had all node ids");
    return ++last_node_;
  }
  void Confirmed(LaunchSeq seq) override { Did("confirmed ", seq.value()); }
  void FailLaunches(const absl::Status& cause) override { Did("fail launches: ", Text(cause)); }
  void Abort(EpochId epoch, EpochId next, absl::Span<const WorkerId> members,
             const absl::Status& cause) override {
    EXPECT_EQ(next.value(), epoch.value() + 1);
    Did("abort ", epoch.value(), " on ", Places(members), ": ", Text(cause));
  }
  void Open(EpochId epoch, absl::Span<const WorkerId> members) override {
    std::vector<std::string> each;
    for (WorkerId m : members) {
      each.push_back(absl::StrCat(m.value(), " as node ", epochs_->node(m)));
    }
    Did("open ", epoch.value(), " on ", absl::StrJoin(each, ", "));
  }
  void SetNodes(EpochId epoch, absl::Span<const WorkerId> members, bool left) override {
    Did("set nodes of ", epoch.value(), " on ", Places(members), left ? " at once" : "");
  }
  void Proceed(EpochId epoch, LaunchSeq seq, absl::Span<const WorkerId> members) override {
    Did("proceed with ", seq.value(), " of ", epoch.value(), " on ", Places(members));
  }
  void SliceLost(int slice, WorkerId member, const absl::Status&) override {
    Did("slice ", slice, " lost by ", member.value());
  }
  void SliceBack(int slice, WorkerId member) override {
    Did("slice ", slice, " back by ", member.value());
  }
  void SetTimer(EpochTimer timer, absl::Duration after) override {
    const bool opening = timer.kind == EpochTimer::Kind::kOpening;
    Did("timer for ", opening ? "opening" : "the cause", " in ", absl::FormatDuration(after));
    timers_.emplace(now_ + after, std::move(timer));
  }
  void GiveUp(WorkerId member, const std::string& why) override {
    Did("give up ", member.value(), ": ", why);
    epochs_->Lost(member, absl::DataLossError(why), now_);
  }

 private:
  template <class... Parts>
  void Did(const Parts&... parts) {
    actions_.push_back(absl::StrCat(parts...));
  }
  static std::string Text(const absl::Status& status) {
    return absl::StrCat(absl::StatusCodeToString(status.code()), " ", status.message());
  }
  static std::string Places(absl::Span<const WorkerId> members) {
    return absl::StrJoin(members, " ", [](std::string* out, WorkerId m) {
      absl::StrAppend(out, m.value());
    });
  }
  static absl::Duration Length(const std::string& text) {
    absl::Duration length;
    EXPECT_TRUE(absl::ParseDuration(text, &length)) << text;
    return length;
  }

  void Event(const std::string& line) {
    const std::pair<std::string, std::string> halves = absl::StrSplit(line, absl::MaxSplits(": ", 1));
    words_ = absl::StrSplit(halves.first, ' ');
    const std::string& text = halves.second;
    const std::string& what = words_[0];
    if (what == "slices") {
      EpochOptions options;
      for (size_t i = 1; i < words_.size(); ++i) options.slices.push_back(std::stoi(words_[i]));
      epochs_ = std::make_unique<Epochs>(options, this);
    } else if (what == "join") {
      const WorkerId place(std::stoi(words_[1]));
      epochs_->Join(place, Incarnation(After("life")), *NewNode(place), now_);
    } else if (what == "launch") {
      std::vector<WorkerId> members;
      for (size_t i = 1; i < words_.size(); ++i) members.push_back(WorkerId(std::stoi(words_[i])));
      Did("place ", epochs_->Launched(members).value());
    } else if (what == "watch") {
      epochs_->Watch(now_);
    } else if (what == "pass") {
      const absl::Time until = now_ + Length(words_[1]);
      while (!timers_.empty() && timers_.begin()->first <= until) {
        auto timer = timers_.extract(timers_.begin());
        now_ = timer.key();
        epochs_->Fired(timer.mapped(), now_);
      }
      now_ = until;
    } else if (halves.first.starts_with("no nodes for ")) {
      no_nodes_.insert(WorkerId(static_cast<int32_t>(After("for"))));
    } else {
      MemberEvent(what, text);
    }
  }

  // All these bear the life of a process, which must still hold a place.
  void MemberEvent(const std::string& what, const std::string& text) {
    const size_t at = what == "not" || what == "peer" ? 2 : 1;
    const auto place = epochs_->PlaceOf(Incarnation(std::stoull(words_.at(at))));
    if (!place.has_value()) return Did("refused: this life has no place");
    const EpochId epoch(After("epoch"));
    const LaunchSeq seq(After("launch"));
    if (what == "opened") {
      epochs_->Opened(*place, epoch, absl::OkStatus(), {Span("drain"), Span("client"), {}}, now_);
    } else if (what == "not") {
      epochs_->Opened(*place, epoch, absl::DeadlineExceededError(text), {}, now_);
    } else if (what == "confirmed") {
      epochs_->Confirmed(*place, epoch, seq, now_);
    } else if (what == "arrived") {
      epochs_->AtRendezvous(*place, epoch, seq);
    } else if (what == "failed") {
      epochs_->LaunchFailed(*place, epoch, absl::ResourceExhaustedError(text), false, now_);
    } else if (what == "peer") {
      epochs_->LaunchFailed(*place, epoch, absl::UnknownError(text), true, now_);
    } else if (what == "report") {
      epochs_->Reported(*place, {epoch, LaunchSeq(After("admitted")), LaunchSeq(After("waiting")),
                                 text});
    } else if (what == "lost") {
      epochs_->Lost(*place, absl::DataLossError(text), now_);
    } else {
      ADD_FAILURE() << "no such event: " << what;
    }
  }

  // The state in question as it is.
  std::string State(const std::string& claim) {
    words_ = absl::StrSplit(claim, ' ');
    const RecoveryStatus& recovery = epochs_->recovery();
    if (words_[0] == "epoch") return absl::StrCat("epoch ", epochs_->epoch().value());
    if (claim.ends_with("complete")) return epochs_->complete() ? "complete" : "not complete";
    if (words_[0] == "opened") return absl::StrCat("opened ", absl::FormatDuration(recovery.opened));
    if (words_[0] == "drain") return absl::StrCat("drain ", absl::FormatDuration(recovery.drain));
    if (words_[0] == "cause") return absl::StrCat("cause ", recovery.cause);
    if (words_[0] == "launched") {
      return absl::StrCat("launched ", absl::FormatDuration(recovery.launched));
    }
    if (words_[0] == "unconfirmed") {
      const int place = std::stoi(words_.back());
      return absl::StrCat("unconfirmed ", epochs_->unconfirmed(WorkerId(place)), " on ", place);
    }
    if (words_[0] == "place") {
      const auto place = epochs_->PlaceOf(Incarnation(After("of")));
      return absl::StrCat("place of ", After("of"), " is ",
                          place.has_value() ? std::to_string(place->value()) : "none");
    }
    return absl::StrCat("unknown: ", claim);
  }

  uint64_t After(const std::string& word) const {
    const auto it = std::find(words_.begin(), words_.end(), word);
    uint64_t number = 0;
    if (it == words_.end()) return number;
    EXPECT_TRUE(it + 1 != words_.end() && absl::SimpleAtoi(*(it + 1), &number)) << word;
    return number;
  }
  absl::Duration Span(const std::string& word) const {
    const auto it = std::find(words_.begin(), words_.end(), word);
    return it == words_.end() ? absl::Duration() : Length(*(it + 1));
  }

  std::unique_ptr<Epochs> epochs_;
  absl::Time now_ = absl::UnixEpoch();
  int last_node_ = 0;
  std::set<WorkerId> no_nodes_;
  std::multimap<absl::Time, EpochTimer> timers_;
  std::vector<std::string> actions_;
  std::vector<std::string> words_;
};

std::vector<std::filesystem::path> Files() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(EPOCH_SCRIPTS)) {
    if (entry.path().extension() == ".txt") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

class EpochScriptTest : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(EpochScriptTest, EveryEventCausesWhatIsWritten) {
  std::ifstream file(GetParam());
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  ASSERT_FALSE(lines.empty()) << GetParam();
  const std::string actual = Script().Run(lines);
  EXPECT_EQ(absl::StrJoin(lines, "\n") + "\n", actual) << "what really happens:\n" << actual;
}

INSTANTIATE_TEST_SUITE_P(Scripts, EpochScriptTest, ::testing::ValuesIn(Files()),
                         [](const auto& info) { return info.param.stem().string(); });

}  // namespace
}  // namespace causeway::core
