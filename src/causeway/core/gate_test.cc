// Tests of gates.
#include "causeway/core/gate.h"

#include "gtest/gtest.h"

namespace causeway::core {
namespace {

TEST(Gate, OpensAfterAllReleases) {
  GateRef gate = Gate::Create(2);
  int calls = 0;
  gate->OnSettled([&](const absl::Status& s) { calls += s.ok() ? 1 : 100; });
  gate->Release();
  EXPECT_FALSE(gate->settled());
  gate->Release();
  EXPECT_TRUE(gate->open());
  EXPECT_EQ(calls, 1);
  gate->OnSettled([&](const absl::Status& s) { calls += s.ok() ? 10 : 100; });
  EXPECT_EQ(calls, 11);
}

TEST(Gate, FirstCauseWinsAndReachesEveryDependent) {
  GateRef a = Gate::Create(1);
  GateRef b = Gate::Create(1);
  b->After(a);
  GateRef c = Gate::Create(1);
  c->After(b);
  a->Fail(absl::ResourceExhaustedError("worker 1 is out of memory"));
  a->Fail(absl::DataLossError("later"));
  EXPECT_TRUE(c->failed());
  EXPECT_EQ(c->error().code(), absl::StatusCode::kResourceExhausted);
  c->Release();
  EXPECT_TRUE(c->failed());
}

TEST(Gate, WaitsForItsInputs) {
  GateRef a = Gate::Create(1);
  GateRef b = Gate::Create(1);
  b->After(a);
  b->Release();
  EXPECT_FALSE(b->settled());
  a->Release();
  EXPECT_TRUE(b->open());
}

TEST(Gate, JoinOfOpenGatesIsOpen) {
  GateRef a = Gate::Create(1);
  a->Release();
  EXPECT_EQ(Gate::Join({a, nullptr}), nullptr);
  GateRef b = Gate::Create(1);
  EXPECT_EQ(Gate::Join({a, b, b}), b);
  GateRef c = Gate::Create(1);
  GateRef join = Gate::Join({b, c});
  b->Release();
  EXPECT_FALSE(join->settled());
  c->Release();
  EXPECT_TRUE(join->open());
}

TEST(Gate, LongChainsSettleWithoutRecursion) {
  std::vector<GateRef> chain;
  for (int i = 0; i < 200000; ++i) {
    chain.push_back(Gate::Create(1));
    if (i > 0) {
      chain[i]->After(chain[i - 1]);
      chain[i]->Release();
    }
  }
  GateRef last = chain.back();
  GateRef first = chain.front();
  chain.clear();
  first->Fail(absl::DataLossError("lost"));
  EXPECT_TRUE(last->failed());
}

}  // namespace
}  // namespace causeway::core
