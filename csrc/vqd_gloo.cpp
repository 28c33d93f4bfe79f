// The only file that sees the stand-ins for gloo's headers.
#define USE_C10D_GLOO 1
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <sstream>
#include <string>

#include "guarded.h"

using c10::intrusive_ptr;
using namespace c10d;

// Gives `group` Gloo for tensors on the CPU, over the network interfaces of these names (with
// commas), or the one that has `address`.
extern "C" char* vqd_gloo_attach(intrusive_ptr<ProcessGroup>* group, intrusive_ptr<Store>* store,
                                 int rank, int count, const char* interfaces,
                                 const char* address, int64_t timeout_ms) {
  return guarded([&] {
    auto options = ProcessGroupGloo::Options::create(std::chrono::milliseconds(timeout_ms));
    if (interfaces) {
      std::istringstream names(interfaces);
      for (std::string name; std::getline(names, name, ',');)
        options->devices.push_back(ProcessGroupGloo::createDeviceForInterface(name));
    } else {
      options->devices.push_back(ProcessGroupGloo::createDeviceForHostname(address));
    }
    auto backend =
        c10::make_intrusive<ProcessGroupGloo>(*store, rank, count, std::move(options));
    backend->setSequenceNumberForGroup();
    (*group)->setBackend(c10::DeviceType::CPU, ProcessGroup::BackendType::GLOO, backend);
  });
}
