// CUDA graphs: a library of its own, which the program loads behind libtorch_cuda.so, so that it
// runs without one. `scripts/build_cuda` compiles it.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>

#include <memory>

#include "../guarded.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

using at::cuda::CUDAGraph;

namespace {

// Where graphs are recorded: on a stream of their own, as capturing is not possible on the default
// one, and with one pool of memory for all, since they are replayed one after the other and what
// they return is copied before the next.
struct Recorder {
  const c10::cuda::CUDAStream stream;
  const at::MempoolId_t pool;
};

// `later` goes on when `earlier` has done what it was asked for so far.
void follow(const c10::Stream& later, const c10::Stream& earlier) {
  c10::Event event(c10::DeviceType::CUDA);
  event.record(earlier);
  event.block(later);
}

}  // namespace

EXPORTED char* vqd_graph_recorder(int device, Recorder** out) {
  return guarded([&] {
    const auto index = static_cast<c10::DeviceIndex>(device);
    *out = new Recorder{c10::cuda::getStreamFromPool(/*isHighPriority=*/false, index),
                        at::cuda::graph_pool_handle()};
  });
}

EXPORTED void vqd_graph_recorder_free(Recorder* recorder) { delete recorder; }

// Records what `work(data)` asks of the device, which it has done `warm_ups` times before: libraries
// plan, and reserve memory, when they first see a shape. `work` says whether it succeeded.
EXPORTED char* vqd_graph_record(Recorder* recorder, int warm_ups, bool (*work)(void*), void* data,
                                CUDAGraph** out) {
  return guarded([&] {
    const c10::Stream side = recorder->stream.unwrap();
    const c10::Stream outer = c10::cuda::getCurrentCUDAStream(side.device_index()).unwrap();
    auto graph = std::make_unique<CUDAGraph>();
    follow(side, outer);
    {
      const c10::StreamGuard guard(side);
      for (int i = 0; i < warm_ups; i++) TORCH_CHECK(work(data), "the work to record failed");
      recorder->stream.synchronize();
      c10::cuda::CUDACachingAllocator::emptyCache();  // what the warm-up took
      // Other threads may go on using CUDA.
      graph->capture_begin(recorder->pool, cudaStreamCaptureModeThreadLocal);
      const bool succeeded = work(data);
      graph->capture_end();
      TORCH_CHECK(succeeded, "the work failed while it was recorded");
    }
    follow(outer, side);
    *out = graph.release();
  });
}

// Does again what was recorded, on the current stream.
EXPORTED char* vqd_graph_replay(CUDAGraph* graph) {
  return guarded([&] { graph->replay(); });
}

EXPORTED void vqd_graph_free(CUDAGraph* graph) { delete graph; }
