// CHECK for our own invariants: on in every build, aborts with the failed expression.
#pragma once

#include "causeway/base/log.h"

#define CHECK(condition) \
  (condition) ? (void)0 : ::causeway::LogVoidify() & \
      ::causeway::LogMessage(::causeway::LogLevel::kFatal, __FILE__, __LINE__).stream() \
          << "CHECK failed: " #condition " "
#define CHECK_EQ(a, b) CHECK((a) == (b))
#define CHECK_NE(a, b) CHECK((a) != (b))
#define CHECK_GE(a, b) CHECK((a) >= (b))
#define CHECK_GT(a, b) CHECK((a) > (b))
#define CHECK_LT(a, b) CHECK((a) < (b))
#define CHECK_LE(a, b) CHECK((a) <= (b))
