// Tests of the routing without a network: a wire that writes down what the router wants.
#include "causeway/callbacks/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"

namespace causeway::callbacks {
namespace {

const char kToken[] = "0123456789abcdef0123456789abcdef";
const char kOther[] = "ffffffffffffffffffffffffffffffff";
constexpr ConnectionId kClient = 10, kStranger = 11, kWorker = 20, kWorker2 = 21;

struct FakeWire : Wire {
  struct Sent {
    ConnectionId to;
    Frame frame;
  };
  void Send(ConnectionId to, Frame frame) override { sent.push_back({to, std::move(frame)}); }
  void Close(ConnectionId id, const std::string&) override { closed.push_back(id); }
  void SetReading(ConnectionId id, bool reading) override { this->reading[id] = reading; }

  std::vector<Frame> Take(ConnectionId to) {
    std::vector<Frame> result;
    for (Sent& s : sent) {
      if (s.to == to) result.push_back(std::move(s.frame));
    }
    sent.erase(std::remove_if(sent.begin(), sent.end(), [&](Sent& s) { return s.to == to; }),
               sent.end());
    return result;
  }

  std::vector<Sent> sent;
  std::vector<ConnectionId> closed;
  std::map<ConnectionId, bool> reading;
};

class RouterTest : public ::testing::Test {
 protected:
  RouterTest() {
    Open(kClient, Kind::kClientHello, EncodeHello(kToken));
    Open(kWorker, Kind::kWorkerHello, EncodeHello(""));
    wire.sent.clear();
  }

  void Open(ConnectionId id, Kind kind, std::string payload) {
    router.Opened(id, now);
    router.Received(id, Frame{.kind = kind, .payload = std::move(payload)});
  }
  void Call(ConnectionId worker, uint64_t call, const std::string& token, size_t bytes = 10,
            bool first = true, bool last = true) {
    router.Received(worker, Frame{.kind = Kind::kCall,
                                  .first = first,
                                  .last = last,
                                  .call = call,
                                  .payload = token + std::string(bytes, 'x')});
  }
  void Use(ConnectionId worker, Kind kind, uint64_t group) {
    router.Received(worker, Frame{.kind = kind, .call = group, .payload = kToken});
  }

  absl::Time now = absl::UnixEpoch();
  FakeWire wire;
  Router router{wire, absl::Seconds(60)};
};

TEST_F(RouterTest, JoinsACallWithItsAnswer) {
  Call(kWorker, 5, kToken);
  auto calls = wire.Take(kClient);
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_EQ(calls[0].worker, kWorker);
  EXPECT_EQ(router.stats().pending_calls, 1);
  router.Received(kClient,
                  Frame{.kind = Kind::kResult, .worker = kWorker, .call = 5, .payload = "result"});
  auto results = wire.Take(kWorker);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].payload, "result");
  EXPECT_EQ(router.stats().pending_calls, 0);
  // A second answer goes nowhere.
  router.Received(kClient, Frame{.kind = Kind::kResult, .worker = kWorker, .call = 5});
  EXPECT_TRUE(wire.Take(kWorker).empty());
}

TEST_F(RouterTest, FailsCallsWithoutAClientAtOnce) {
  Call(kWorker, 1, kOther);
  auto answers = wire.Take(kWorker);
  ASSERT_FALSE(answers.empty());
  EXPECT_EQ(answers[0].kind, Kind::kError);
  EXPECT_EQ(DecodeError(answers[0].payload).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(wire.Take(kClient).empty());
}

TEST_F(RouterTest, FailsPendingAndLaterCallsOfAClientThatDies) {
  Call(kWorker, 1, kToken);
  Call(kWorker, 2, kToken, 10, true, false);
  wire.sent.clear();
  router.Closed(kClient);
  int errors = 0;
  uint64_t granted = 0;
  for (const Frame& f : wire.Take(kWorker)) {
    if (f.kind == Kind::kError) {
      ++errors;
      EXPECT_EQ(DecodeError(f.payload).code(), absl::StatusCode::kUnavailable);
    }
    if (f.kind == Kind::kGrant) granted += f.call;
  }
  EXPECT_EQ(errors, 2);
  EXPECT_EQ(granted, 2 * (kHeaderBytes + kTokenChars + 10));  // what was queued for it is dropped
  EXPECT_EQ(router.stats().pending_calls, 0);
  Call(kWorker, 2, kToken, 10, false, true);  // the rest of a failed call
  auto rest = wire.Take(kWorker);
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0].kind, Kind::kGrant);
  Call(kWorker, 3, kToken);
  EXPECT_EQ(wire.Take(kWorker)[0].kind, Kind::kError);
}

TEST_F(RouterTest, TellsClientsOfAWorkerThatDies) {
  Call(kWorker, 1, kToken);
  Call(kWorker, 2, kToken);
  wire.sent.clear();
  router.Closed(kWorker);
  auto told = wire.Take(kClient);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].kind, Kind::kWorkerGone);
  EXPECT_EQ(told[0].worker, kWorker);
  router.Received(kClient, Frame{.kind = Kind::kResult, .worker = kWorker, .call = 1});
  EXPECT_TRUE(wire.sent.empty());
  EXPECT_TRUE(wire.closed.empty());  // a late answer is no offence
}

TEST_F(RouterTest, RefusesForeignTokensAndAnswers) {
  Open(kStranger, Kind::kClientHello, EncodeHello(kToken));
  EXPECT_EQ(wire.closed, std::vector<ConnectionId>{kStranger});
  auto refused = wire.Take(kStranger);
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].kind, Kind::kRefused);
  EXPECT_TRUE(absl::StrContains(refused[0].payload, "in use"));
  router.Closed(kStranger);
  Call(kWorker, 1, kToken);
  EXPECT_EQ(wire.Take(kClient).size(), 1u);  // still the first one's

  constexpr ConnectionId kThird = 12;
  Open(kThird, Kind::kClientHello, EncodeHello(kOther));
  router.Received(kThird, Frame{.kind = Kind::kResult, .worker = kWorker, .call = 1});
  EXPECT_TRUE(wire.Take(kWorker).empty());
  EXPECT_EQ(wire.closed.back(), kThird);
  EXPECT_EQ(router.stats().pending_calls, 1);
}

TEST_F(RouterTest, RefusesBadHellos) {
  ConnectionId id = 100;
  std::string old = EncodeHello(kToken);
  old[kMagic.size()] = 9;
  for (const std::string& payload : {std::string(), std::string("CW"), EncodeHello("short"),
                                     EncodeHello("../../../../../../../../../../etc"), old}) {
    Open(id, Kind::kClientHello, payload);
    EXPECT_EQ(wire.closed.back(), id);
    router.Closed(id++);
  }
  Open(id, Kind::kCall, kToken);
  EXPECT_EQ(wire.closed.back(), id);
  router.Closed(id++);
  router.Opened(id, now);
  router.Tick(now + absl::Seconds(kHelloSecondsMax + 1));
  EXPECT_EQ(wire.closed.back(), id);
}

TEST_F(RouterTest, GrantsTheWindowBackAsTheClientReads) {
  const int64_t piece = kPieceBytes - kTokenChars;
  int64_t sent = 0, granted = 0;
  for (int i = 0; sent + static_cast<int64_t>(kHeaderBytes + kPieceBytes) <= kWindowBytes; ++i) {
    Call(kWorker, 1, kToken, piece, i == 0, false);
    sent += kHeaderBytes + kPieceBytes;
  }
  EXPECT_TRUE(wire.Take(kWorker).empty());
  for (const Frame& f : wire.Take(kClient)) {
    router.Written(kClient, f.kind, f.worker, f.payload.size());
  }
  for (const Frame& f : wire.Take(kWorker)) {
    EXPECT_EQ(f.kind, Kind::kGrant);
    granted += f.call;
  }
  EXPECT_EQ(granted, sent);
}

TEST_F(RouterTest, ClosesAWorkerThatIgnoresTheWindow) {
  for (int i = 0; i < 20 && wire.closed.empty(); ++i) {
    Call(kWorker, 1, kToken, kPieceBytes - kTokenChars, i == 0, false);
  }
  EXPECT_EQ(wire.closed, std::vector<ConnectionId>{kWorker});
}

TEST_F(RouterTest, StopsReadingAClientWhoseWorkerTakesNothing) {
  Call(kWorker, 1, kToken);
  wire.sent.clear();
  auto piece = [&] {
    router.Received(kClient, Frame{.kind = Kind::kResult,
                                   .first = false,
                                   .last = false,
                                   .worker = kWorker,
                                   .call = 1,
                                   .payload = std::string(kPieceBytes, 'r')});
  };
  for (int i = 0; i < 16; ++i) piece();
  ASSERT_TRUE(wire.reading.count(kClient) == 1 && !wire.reading[kClient]);
  for (const Frame& f : wire.Take(kWorker)) {
    router.Written(kWorker, f.kind, f.worker, f.payload.size());
  }
  EXPECT_TRUE(wire.reading[kClient]);
  for (int i = 0; i < 17; ++i) piece();
  EXPECT_FALSE(wire.reading[kClient]);
  router.Closed(kWorker);
  EXPECT_TRUE(wire.reading[kClient]);
}

TEST_F(RouterTest, ReleasesAGroupWhenNobodyNeedsIt) {
  Open(kWorker2, Kind::kWorkerHello, EncodeHello(""));
  Use(kWorker, Kind::kUse, 7);
  Use(kWorker2, Kind::kUse, 7);
  Use(kWorker, Kind::kUse, 8);
  Use(kWorker, Kind::kUnuse, 8);  // loaded elsewhere later: the handle still exists
  wire.sent.clear();
  router.ProgramGone(kToken, 7, now);
  router.Tick(now += absl::Hours(1));
  EXPECT_TRUE(wire.Take(kClient).empty());
  Use(kWorker, Kind::kUnuse, 7);
  router.Tick(now += absl::Hours(1));
  EXPECT_TRUE(wire.Take(kClient).empty());
  router.Closed(kWorker2);
  router.Tick(now + absl::Seconds(59));
  EXPECT_TRUE(wire.Take(kClient).empty());
  router.Tick(now += absl::Seconds(61));
  auto released = wire.Take(kClient);
  ASSERT_EQ(released.size(), 1u);
  EXPECT_EQ(released[0].kind, Kind::kRelease);
  EXPECT_EQ(released[0].call, 7u);
  router.Tick(now += absl::Hours(1));
  EXPECT_TRUE(wire.Take(kClient).empty());
}

TEST_F(RouterTest, AUseWithinTheGraceKeepsTheGroup) {
  router.ProgramGone(kToken, 7, now);
  router.Tick(now += absl::Seconds(30));
  Use(kWorker, Kind::kUse, 7);
  router.Tick(now += absl::Seconds(120));
  EXPECT_TRUE(wire.Take(kClient).empty());
  Use(kWorker, Kind::kUnuse, 7);
  router.Tick(now += absl::Seconds(61));
  EXPECT_EQ(wire.Take(kClient).size(), 1u);
}

}  // namespace
}  // namespace causeway::callbacks
