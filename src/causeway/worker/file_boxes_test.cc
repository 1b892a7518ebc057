// Boxes of every shape land where an array in a file has them.
#include "causeway/worker/file_boxes.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

#include "causeway/model/host_copy.h"
#include "causeway/model/sharding.h"

namespace causeway::worker {
namespace {

TEST(WriteBoxTest, PutsTogetherWhatWasCutApart) {
  const std::vector<int64_t> dims = {4, 6, 5};
  std::string whole(4 * 6 * 5 * 2, 0);
  for (size_t i = 0; i < whole.size(); ++i) whole[i] = static_cast<char>(i * 7 + i / 256);
  const std::vector<int64_t> strides = model::DenseStrides(dims, 2);
  std::string path = ::testing::TempDir() + "boxes_XXXXXX";
  const int fd = ::mkstemp(path.data());
  ASSERT_GE(fd, 0);
  // Every way to cut the three dimensions into halves or not.
  for (int cut = 0; cut < 8; ++cut) {
    ASSERT_EQ(::ftruncate(fd, 0), 0);
    for (int part = 0; part < 8; ++part) {
      if ((part & ~cut) != 0) continue;
      std::vector<int64_t> start, size;
      for (int d = 0; d < 3; ++d) {
        const bool is_cut = (cut >> d & 1) != 0, second = (part >> d & 1) != 0;
        const int64_t half = dims[d] / 2;
        start.push_back(second ? half : 0);
        size.push_back(!is_cut ? dims[d] : second ? dims[d] - half : half);
      }
      std::string bytes(model::NumElements(size) * 2, 0);
      model::CopyStrided(size, 2, whole.data() + model::ByteOffset(start, strides), strides,
                         bytes.data(), model::DenseStrides(size, 2));
      const FilePart where{BufferId(1), 0, 64, dims, start};
      ASSERT_TRUE(WriteBox(path, where, {device::HostBlock::FromString(bytes), size, 2}).ok());
    }
    std::string found(whole.size(), 0);
    ASSERT_EQ(::pread(fd, found.data(), found.size(), 64), static_cast<ssize_t>(found.size()));
    EXPECT_EQ(found, whole) << "cut " << cut;
  }
  ::close(fd);
  ::unlink(path.c_str());
}

TEST(WriteBoxTest, AScalarIsABoxToo) {
  std::string path = ::testing::TempDir() + "scalar_XXXXXX";
  const int fd = ::mkstemp(path.data());
  ASSERT_TRUE(WriteBox(path, {BufferId(1), 0, 0, {}, {}},
                       {device::HostBlock::FromString("abcd"), {}, 4})
                  .ok());
  char found[4];
  ASSERT_EQ(::pread(fd, found, 4, 0), 4);
  EXPECT_EQ(std::string(found, 4), "abcd");
  ::close(fd);
  ::unlink(path.c_str());
}

}  // namespace
}  // namespace causeway::worker
