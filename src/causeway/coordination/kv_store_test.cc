// Tests of the key-value store.
#include "causeway/coordination/kv_store.h"

#include <optional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::coordination {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using Answer = std::optional<absl::StatusOr<std::string>>;

KvStore::GetCallback Into(Answer& answer) {
  return [&answer](absl::StatusOr<std::string> value) {
    EXPECT_FALSE(answer.has_value()) << "answered twice";
    answer = std::move(value);
  };
}

TEST(KvStore, InsertsOnceUnlessOverwritingIsAllowed) {
  KvStore store;
  EXPECT_TRUE(store.Insert("a", "1", false).ok());
  EXPECT_EQ(store.Insert("a", "2", false).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(*store.TryGet("a"), "1");
  EXPECT_TRUE(store.Insert("a", "2", true).ok());
  EXPECT_EQ(*store.TryGet("a"), "2");
  EXPECT_EQ(store.TryGet("b").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store.Insert("", "x", true).code(), absl::StatusCode::kInvalidArgument);
}

TEST(KvStore, AGetWaitsForItsKeyAndNoOther) {
  KvStore store;
  Answer first, second, other;
  EXPECT_NE(store.Get("a", Into(first)), 0u);
  EXPECT_NE(store.Get("a", Into(second)), 0u);
  EXPECT_NE(store.Get("b", Into(other)), 0u);
  ASSERT_TRUE(store.Insert("a", "1", false).ok());
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_EQ(**first, "1");
  EXPECT_EQ(**second, "1");
  EXPECT_FALSE(other.has_value());
  Answer present;
  EXPECT_EQ(store.Get("a", Into(present)), 0u);
  EXPECT_EQ(**present, "1");
  EXPECT_EQ(store.num_waiters(), 1);
}

TEST(KvStore, ACancelledGetIsNeverAnswered) {
  KvStore store;
  Answer gone, kept;
  const uint64_t waiter = store.Get("a", Into(gone));
  store.Get("a", Into(kept));
  EXPECT_TRUE(store.CancelGet(waiter));
  EXPECT_FALSE(store.CancelGet(waiter));
  ASSERT_TRUE(store.Insert("a", "1", false).ok());
  EXPECT_FALSE(gone.has_value());
  EXPECT_TRUE(kept.has_value());
}

TEST(KvStore, FailingWaitersLeavesKeysAlone) {
  KvStore store;
  ASSERT_TRUE(store.Insert("a", "1", false).ok());
  Answer waiting;
  store.Get("b", Into(waiting));
  EXPECT_EQ(store.FailWaiters(absl::AbortedError("slice 1 is lost")), 1);
  ASSERT_TRUE(waiting.has_value());
  EXPECT_EQ(waiting->status().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(waiting->status().message()), HasSubstr("key b: slice 1 is lost"));
  EXPECT_EQ(store.num_keys(), 1);
  EXPECT_EQ(store.num_waiters(), 0);
}

TEST(KvStore, DirectoriesArePathsNotPrefixes) {
  KvStore store;
  for (const char* key : {"a/b", "a/b/c", "a/bc", "a/b0", "z"}) {
    ASSERT_TRUE(store.Insert(key, key, false).ok());
  }
  EXPECT_THAT(store.List("a/b"), ElementsAre(Pair("a/b/c", "a/b/c")));
  EXPECT_EQ(store.List("a").size(), 4u);
  EXPECT_EQ(store.List("").size(), 5u);
  store.Delete("a/b", true);
  EXPECT_THAT(store.List("a"), ElementsAre(Pair("a/b0", "a/b0"), Pair("a/bc", "a/bc")));
  store.Delete("absent", true);
  EXPECT_EQ(store.num_keys(), 3);
}

TEST(KvStore, DeletesByPrefixOrAllButSome) {
  KvStore store;
  for (const char* key : {"cpu:gloo/1,2/0", "cpu:gloo/1,2/1", "cpu:global", "user"}) {
    ASSERT_TRUE(store.Insert(key, "v", false).ok());
  }
  EXPECT_EQ(store.DeletePrefix("cpu:gloo/"), 2);
  EXPECT_EQ(store.DeleteAllBut({"cpu:global", "absent"}), 1);
  EXPECT_THAT(store.List(""), ElementsAre(Pair("cpu:global", "v")));
}

TEST(KvStore, IncrementsNumbersOnly) {
  KvStore store;
  Answer waiting;
  store.Get("n", Into(waiting));
  EXPECT_EQ(*store.Increment("n", 5), "5");
  EXPECT_EQ(**waiting, "5");
  EXPECT_EQ(*store.Increment("n", -7), "-2");
  ASSERT_TRUE(store.Insert("text", "x", false).ok());
  EXPECT_EQ(store.Increment("text", 1).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(store.Insert("top", "9223372036854775807", false).ok());
  EXPECT_EQ(store.Increment("top", 1).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*store.TryGet("top"), "9223372036854775807");
}

TEST(KvStore, EveryBoundHolds) {
  KvStore store({.key_bytes_max = 4,
                 .value_bytes_max = 10,
                 .keys_max = 3,
                 .total_bytes_max = 25,
                 .waiters_max = 1});
  EXPECT_EQ(store.Insert("12345", "", false).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store.Insert("k", std::string(11, 'v'), false).code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(store.Insert("a", std::string(10, 'v'), false).ok());
  ASSERT_TRUE(store.Insert("b", std::string(10, 'v'), false).ok());
  EXPECT_EQ(store.Insert("c", "1234", false).code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(store.Insert("c", "", false).ok());
  EXPECT_EQ(store.Insert("d", "", false).code(), absl::StatusCode::kResourceExhausted);
  // A value that is replaced gives its room back, and so does one that is deleted.
  EXPECT_TRUE(store.Insert("a", std::string(10, 'w'), true).ok());
  store.Delete("b", false);
  EXPECT_TRUE(store.Insert("d", std::string(10, 'v'), false).ok());
  Answer waiting, refused;
  store.Get("x", Into(waiting));
  EXPECT_EQ(store.Get("y", Into(refused)), 0u);
  EXPECT_EQ(refused->status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace causeway::coordination
