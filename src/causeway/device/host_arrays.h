// Arrays that live in host memory on every platform, beside a device's own: arrays of text.
//
// XLA has no such element type. Their shards are kept as the bytes that clients send and get, and
// go through the same calls as all others; only compiled programs refuse them.
#pragma once

#include <memory>

#include "causeway/device/device.h"

namespace causeway::device {

// `device` with arrays of text. Thread safety: as Device.
std::unique_ptr<Device> WithHostArrays(std::unique_ptr<Device> device);

// Whether the array lives in host memory.
bool IsHostArray(const Array& array);

}  // namespace causeway::device
