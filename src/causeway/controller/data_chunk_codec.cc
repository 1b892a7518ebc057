// Writes Data commands field by field, to spare large payloads the way through a message object.
#include "causeway/controller/data_chunk_codec.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/string_view.h"
#include "control.pb.h"

namespace causeway::controller {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedOutputStream;

std::shared_ptr<const std::string> EncodeDataChunk(TransferId transfer, int64_t offset,
                                                   int64_t total, const absl::Cord& bytes,
                                                   bool checksum) {
  control::Data head;
  head.set_transfer(transfer.value());
  head.set_offset(offset);
  head.set_total(total);
  if (checksum) {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (absl::string_view chunk : bytes.Chunks()) {
      XXH3_64bits_update(&state, chunk.data(), chunk.size());
    }
    head.set_checksum(XXH3_64bits_digest(&state));
    head.set_has_checksum(true);
  }

  uint8_t tags[32];
  uint8_t* end = CodedOutputStream::WriteTagToArray(
      WireFormatLite::MakeTag(control::Data::kBytesFieldNumber,
                              WireFormatLite::WIRETYPE_LENGTH_DELIMITED),
      tags);
  end = CodedOutputStream::WriteVarint64ToArray(bytes.size(), end);
  const std::string bytes_tag(reinterpret_cast<char*>(tags), end - tags);

  const std::string fields = head.SerializeAsString();
  const size_t data_size = fields.size() + bytes_tag.size() + bytes.size();
  end = CodedOutputStream::WriteTagToArray(
      WireFormatLite::MakeTag(control::Command::kDataFieldNumber,
                              WireFormatLite::WIRETYPE_LENGTH_DELIMITED),
      tags);
  end = CodedOutputStream::WriteVarint64ToArray(data_size, end);

  std::string command;
  command.reserve(static_cast<size_t>(end - tags) + data_size);
  command.append(reinterpret_cast<char*>(tags), end - tags);
  command.append(fields);
  command.append(bytes_tag);
  for (absl::string_view chunk : bytes.Chunks()) command.append(chunk.data(), chunk.size());
  return std::make_shared<const std::string>(std::move(command));
}

std::shared_ptr<const std::string> EncodeDataFile(TransferId transfer, const std::string& name,
                                                  int64_t offset, int64_t bytes,
                                                  std::optional<uint64_t> checksum) {
  control::Command command;
  control::Data& data = *command.mutable_data();
  data.set_transfer(transfer.value());
  data.set_total(bytes);
  data.set_file(name);
  data.set_file_offset(offset);
  if (checksum.has_value()) {
    data.set_checksum(*checksum);
    data.set_has_checksum(true);
  }
  return std::make_shared<const std::string>(command.SerializeAsString());
}

std::shared_ptr<const std::string> EncodeDataError(TransferId transfer,
                                                   const absl::Status& error) {
  control::Command command;
  control::Data& data = *command.mutable_data();
  data.set_transfer(transfer.value());
  data.mutable_error()->set_code(static_cast<int>(error.code()));
  data.mutable_error()->set_message(std::string(error.message()));
  return std::make_shared<const std::string>(command.SerializeAsString());
}

}  // namespace causeway::controller
