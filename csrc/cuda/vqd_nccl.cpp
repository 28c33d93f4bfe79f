// NCCL for tensors on CUDA devices: a library of its own, which the program loads behind
// libtorch_cuda.so, so that it runs without one. `scripts/build_cuda` compiles it.
#define USE_C10D_NCCL 1
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "../guarded.h"

using c10::intrusive_ptr;
using namespace c10d;

// Gives `group` NCCL for tensors on the CUDA device `device`.
extern "C" __attribute__((visibility("default"))) char* vqd_nccl_attach(
    intrusive_ptr<ProcessGroup>* group, intrusive_ptr<Store>* store, int rank, int count,
    int device, int64_t timeout_ms) {
  return guarded([&] {
    auto options = ProcessGroupNCCL::Options::create(/*is_high_priority_stream=*/false);
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto backend = c10::make_intrusive<ProcessGroupNCCL>(*store, rank, count, options);
    backend->setSequenceNumberForGroup();
    (*group)->setBackend(c10::DeviceType::CUDA, ProcessGroup::BackendType::NCCL, backend);
    (*group)->setBoundDeviceId(at::Device(at::kCUDA, device));
  });
}
