// Tests of the host buffer store: both orders of upload and claim, sizes, limits, shutdown.
#include "causeway/proxy/host_buffer_store.h"

#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::proxy {
namespace {

using ::testing::HasSubstr;
using Result = std::optional<absl::StatusOr<absl::Cord>>;

std::shared_ptr<HostBufferStore> Store(HostBufferStore::Limits limits = {}) {
  return std::make_shared<HostBufferStore>(limits);
}

void Listen(const std::shared_ptr<core::HostBytes>& bytes, Result* out, int* calls = nullptr) {
  bytes->OnReady([out, calls](absl::StatusOr<absl::Cord> r) {
    *out = std::move(r);
    if (calls != nullptr) ++*calls;
  });
}

absl::Status Send(HostBufferStore& store, uint64_t handle, int64_t size,
                  const std::vector<std::string>& chunks) {
  auto upload = store.BeginUpload(handle, size);
  if (!upload.ok()) return upload.status();
  for (const std::string& chunk : chunks) {
    if (absl::Status s = (*upload)->Append(chunk); !s.ok()) return s;
  }
  return (*upload)->Commit();
}

TEST(HostBufferStore, UploadThenClaim) {
  auto store = Store();
  ASSERT_TRUE(Send(*store, 1, 6, {"abc", "", "def"}).ok());
  EXPECT_EQ(store->Lookup(1)->bytes, "abcdef");
  EXPECT_EQ(store->num_bytes(), 6);
  Result got;
  Listen(store->Claim(1), &got);
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(**got, "abcdef");
  EXPECT_EQ(store->Lookup(1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store->num_bytes(), 0);
}

TEST(HostBufferStore, ClaimThenUploadAndManyTakers) {
  auto store = Store();
  auto bytes = store->Claim(9);
  EXPECT_EQ(store->Claim(9), bytes);
  Result a, b, c;
  int calls = 0;
  Listen(bytes, &a, &calls);
  Listen(bytes, &b, &calls);
  auto upload = store->BeginUpload(9, 2);
  ASSERT_TRUE(upload.ok());
  ASSERT_TRUE((*upload)->Append("xy").ok());
  EXPECT_FALSE(a.has_value());
  ASSERT_TRUE((*upload)->Commit().ok());
  Listen(bytes, &c, &calls);
  ASSERT_TRUE(a && b && c);
  EXPECT_EQ(**a, "xy");
  EXPECT_EQ(**b, "xy");
  EXPECT_EQ(**c, "xy");
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(store->num_buffers(), 0);
  EXPECT_EQ(store->num_bytes(), 0);
}

TEST(HostBufferStore, EmptyBuffersExist) {
  auto store = Store();
  ASSERT_TRUE(Send(*store, 3, 0, {}).ok());
  ASSERT_TRUE(store->Lookup(3).ok());
  EXPECT_EQ(store->Lookup(3)->bytes.size(), 0u);
  EXPECT_TRUE(store->Delete(3).ok());
  EXPECT_EQ(store->Delete(3).code(), absl::StatusCode::kNotFound);
}

TEST(HostBufferStore, WrongSizesAreDataLossAndReachTheClaimant) {
  auto store = Store();
  Result got;
  Listen(store->Claim(5), &got);
  EXPECT_EQ(Send(*store, 5, 4, {"abc"}).code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Send(*store, 6, 2, {"abc"}).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(store->num_buffers(), 0);
  EXPECT_EQ(store->num_bytes(), 0);
}

TEST(HostBufferStore, AnAbandonedUploadFailsItsClaimant) {
  auto store = Store();
  Result got;
  {
    auto upload = store->BeginUpload(5, 4);
    ASSERT_TRUE(upload.ok());
    Listen(store->Claim(5), &got);
    EXPECT_FALSE(got.has_value());
  }
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->status().code(), absl::StatusCode::kDataLoss);
}

TEST(HostBufferStore, InsertsOnce) {
  auto store = Store();
  ASSERT_TRUE(Send(*store, 1, 1, {"a"}).ok());
  EXPECT_EQ(Send(*store, 1, 1, {"b"}).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(store->Put(1, absl::Cord("b")).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(store->Lookup(1)->bytes, "a");
}

TEST(HostBufferStore, LimitsAreNamed) {
  auto store = Store({.max_bytes = 10, .max_buffers = 2});
  ASSERT_TRUE(store->Put(1, absl::Cord("12345678")).ok());
  absl::Status too_big = store->Put(2, absl::Cord("abc"));
  EXPECT_EQ(too_big.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(too_big.message()), HasSubstr("max_bytes_per_session = 10"));
  ASSERT_TRUE(store->Put(2, absl::Cord("a")).ok());
  absl::Status too_many = store->Put(3, absl::Cord("b"));
  EXPECT_EQ(too_many.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(too_many.message()), HasSubstr("max_buffers_per_session = 2"));
  Result got;
  Listen(store->Claim(4), &got);
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->status().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(store->Delete(1).ok());
  EXPECT_TRUE(store->Put(3, absl::Cord("b")).ok());
  EXPECT_EQ(Send(*store, 7, -1, {}).code(), absl::StatusCode::kInvalidArgument);
}

TEST(HostBufferStore, ShutdownWakesWaitersAndRefusesLater) {
  auto store = Store();
  Result waiting, during;
  Listen(store->Claim(1), &waiting);
  auto upload = store->BeginUpload(2, 1);
  ASSERT_TRUE(upload.ok());
  Listen(store->Claim(2), &during);
  store->Shutdown("client left");
  ASSERT_TRUE(waiting && during);
  EXPECT_EQ(waiting->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(during->status().code(), absl::StatusCode::kCancelled);
  ASSERT_TRUE((*upload)->Append("x").ok());
  EXPECT_TRUE((*upload)->Commit().ok());  // too late, and harmless
  EXPECT_EQ(store->num_buffers(), 0);
  EXPECT_EQ(store->Put(3, absl::Cord("a")).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(store->Lookup(3).status().code(), absl::StatusCode::kCancelled);
}

TEST(HostBufferStore, RacingUploadsAndClaimsAllMeet) {
  auto store = Store();
  constexpr int kBuffers = 2000;
  std::vector<Result> results(kBuffers);
  std::thread uploader([&] {
    for (int i = 0; i < kBuffers; ++i) {
      ASSERT_TRUE(Send(*store, i + 1, 1, {std::string(1, char('a' + i % 26))}).ok());
    }
  });
  for (int i = 0; i < kBuffers; ++i) Listen(store->Claim(i + 1), &results[i]);
  uploader.join();
  for (int i = 0; i < kBuffers; ++i) {
    ASSERT_TRUE(results[i].has_value()) << i;
    EXPECT_EQ(**results[i], std::string(1, char('a' + i % 26)));
  }
  EXPECT_EQ(store->num_buffers(), 0);
}

}  // namespace
}  // namespace causeway::proxy
