# The head's end of the control stream, apart from the controller, which knows no network.
causeway_library(control_service
  SRCS command_writer.cc control_service.cc data_chunk_codec.cc hello_codec.cc outbox.cc worker_attachment.cc
       worker_connection.cc
  DEPS causeway_core causeway_liveness causeway_net causeway_wire causeway_base proto_control
       absl::flat_hash_map absl::synchronization)
causeway_test(control_service_test SRCS control_service_test.cc outbox_test.cc
  DEPS causeway_control_service)
