#pragma once
// Opaque stand-ins for the gloo headers that the torch wheel does not ship: what
// ProcessGroupGloo.hpp needs to be parsed. Nothing here is defined anywhere, so code that
// would really use gloo through them fails to link.
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>
namespace gloo {
class Algorithm;
class Context {  // only ever behind a shared_ptr
 public:
  Context() = delete;
  void setTimeout(std::chrono::milliseconds);
};
namespace transport {
class Context;
class Device;
class Pair;
class UnboundBuffer;
}  // namespace transport
}  // namespace gloo
