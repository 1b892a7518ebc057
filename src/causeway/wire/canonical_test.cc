// Tests of the canonical form of serialized maps.
#include "causeway/wire/canonical.h"

#include <string>

#include "control.pb.h"
#include "gtest/gtest.h"

namespace causeway::wire {
namespace {

std::string Reply(bool reversed) {
  // Map entries in a chosen order, behind an ordinary field, one level down.
  control::Reply a, b;
  (*a.mutable_numbers())["flops"] = 1;
  (*b.mutable_numbers())["bytes accessed"] = 2;
  control::Reply first;
  first.set_request(7);
  const std::string inner = first.SerializeAsString() +
                            (reversed ? b.SerializeAsString() + a.SerializeAsString()
                                      : a.SerializeAsString() + b.SerializeAsString());
  std::string bytes = "\x0a";  // field 1, length-delimited
  bytes.push_back(static_cast<char>(inner.size()));
  return bytes + inner;
}

TEST(CanonicalMaps, OrderOfEntriesDoesNotMatter) {
  ASSERT_NE(Reply(false), Reply(true));
  EXPECT_EQ(CanonicalMaps(Reply(false)), CanonicalMaps(Reply(true)));
}

TEST(CanonicalMaps, ContentDoes) {
  control::Reply a, b;
  (*a.mutable_numbers())["flops"] = 1;
  (*b.mutable_numbers())["flops"] = 2;
  EXPECT_NE(CanonicalMaps(a.SerializeAsString()), CanonicalMaps(b.SerializeAsString()));
}

TEST(CanonicalMaps, RepeatedValuesKeepTheirOrder) {
  control::Build a;
  a.add_devices(2);
  a.add_devices(1);
  a.add_shards()->set_device(5);
  a.add_shards()->set_device(3);
  control::Build parsed;
  ASSERT_TRUE(parsed.ParseFromString(CanonicalMaps(a.SerializeAsString())));
  EXPECT_EQ(parsed.shards(0).device(), 5);
  EXPECT_EQ(parsed.devices(0), 2);
}

TEST(CanonicalMaps, OtherBytesComeBackAsTheyAre) {
  const std::string bytes = "\xff\xff\xff no message";
  EXPECT_EQ(CanonicalMaps(bytes), bytes);
  EXPECT_EQ(CanonicalMaps(""), "");
}

}  // namespace
}  // namespace causeway::wire
