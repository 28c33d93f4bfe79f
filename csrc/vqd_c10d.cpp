// PyTorch's c10d: the store that processes meet in, collective operations, and the Reducer,
// which averages gradients while the backward pass goes on.
#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/logger.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <c10/util/Logging.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>

#include "guarded.h"

using c10::intrusive_ptr;
using namespace c10d;

namespace {

struct Gradients {
  std::shared_ptr<Reducer> reducer;
  std::shared_ptr<Logger> logger;
};

// Sends a bucket of gradients in bf16, which has the range of f32. Divided first, as in
// PyTorch's hook for f16; the sums come back as f32.
struct Bf16Hook : CppCommHookInterface<intrusive_ptr<ProcessGroup>> {
  using CppCommHookInterface::CppCommHookInterface;

  intrusive_ptr<c10::ivalue::Future> runHook(GradBucket& bucket) override {
    auto gradients = bucket.getBufferRef();
    std::vector<at::Tensor> sent{gradients.to(at::kBFloat16).div_(state_->getSize())};
    auto sum = state_->allreduce(sent)->getFuture();
    return sum->then(
        [gradients](c10::ivalue::Future& sum) {
          gradients.copy_(c10d::detail::parseCppCommHookResult(sum.value()));
          return c10::IValue(gradients);
        },
        c10::TensorType::get());
  }
};

std::vector<at::Tensor> list(at::Tensor** tensors, size_t count) {
  std::vector<at::Tensor> out;
  out.reserve(count);
  for (size_t i = 0; i < count; i++) out.push_back(*tensors[i]);
  return out;
}

// As torch.nn.parallel.DistributedDataParallel has them.
constexpr int64_t bucket_bytes = 25 << 20;
constexpr int64_t first_bucket_bytes = 1 << 20;

}  // namespace

extern "C" {

// With `hosts` the store is in this process; port 0 takes a free one.
char* vqd_store_new(const char* host, uint16_t port, bool hosts, int64_t timeout_ms,
                    intrusive_ptr<Store>** out, uint16_t* taken) {
  return guarded([&] {
    // Exceptions say what libtorch's warnings of broken connections say, without a C++ stack.
    if (!std::getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = 2;
    TCPStoreOptions options;
    options.port = port;
    options.isServer = hosts;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    auto store = c10::make_intrusive<TCPStore>(std::string(host), options);
    *taken = store->getPort();
    *out = new intrusive_ptr<Store>(std::move(store));
  });
}

char* vqd_store_prefix(intrusive_ptr<Store>* store, const char* prefix,
                       intrusive_ptr<Store>** out) {
  return guarded([&] {
    *out = new intrusive_ptr<Store>(c10::make_intrusive<PrefixStore>(std::string(prefix), *store));
  });
}

char* vqd_store_set(intrusive_ptr<Store>* store, const char* key, const uint8_t* value,
                    size_t length) {
  return guarded([&] { (*store)->set(key, std::vector<uint8_t>(value, value + length)); });
}

// Waits until there is a value; it is for vqd_free.
char* vqd_store_get(intrusive_ptr<Store>* store, const char* key, char** value, size_t* length) {
  return guarded([&] {
    const auto bytes = (*store)->get(key);
    *value = static_cast<char*>(malloc(bytes.size() + 1));
    std::copy(bytes.begin(), bytes.end(), *value);
    *length = bytes.size();
  });
}

char* vqd_store_has(intrusive_ptr<Store>* store, const char* key, bool* has) {
  return guarded([&] { *has = (*store)->check({std::string(key)}); });
}

char* vqd_store_add(intrusive_ptr<Store>* store, const char* key, int64_t more, int64_t* sum) {
  return guarded([&] { *sum = (*store)->add(key, more); });
}

// Sets what has no value yet; the answer is the value that it has then, for vqd_free.
char* vqd_store_set_first(intrusive_ptr<Store>* store, const char* key, const uint8_t* value,
                          size_t length, char** out, size_t* out_length) {
  return guarded([&] {
    const std::vector<uint8_t> wanted(value, value + length);
    const auto bytes = (*store)->compareSet(key, std::vector<uint8_t>{}, wanted);
    *out = static_cast<char*>(malloc(bytes.size() + 1));
    std::copy(bytes.begin(), bytes.end(), *out);
    *out_length = bytes.size();
  });
}

// A connection of its own to the same store.
char* vqd_store_clone(intrusive_ptr<Store>* store, intrusive_ptr<Store>** out) {
  return guarded([&] { *out = new intrusive_ptr<Store>((*store)->clone()); });
}

void vqd_store_free(intrusive_ptr<Store>* store) { delete store; }

char* vqd_group_new(intrusive_ptr<Store>* store, int rank, int count,
                    intrusive_ptr<ProcessGroup>** out) {
  return guarded([&] {
    auto group = c10::make_intrusive<ProcessGroup>(*store, rank, count);
    group->setDefaultBackend(ProcessGroup::BackendType::GLOO);
    *out = new intrusive_ptr<ProcessGroup>(std::move(group));
  });
}

char* vqd_group_name(intrusive_ptr<ProcessGroup>* group, const char* name) {
  return guarded([&] { (*group)->setGroupName(name); });
}

void vqd_group_free(intrusive_ptr<ProcessGroup>* group) { delete group; }

char* vqd_all_gather(intrusive_ptr<ProcessGroup>* group, at::Tensor* in, at::Tensor** outs,
                     size_t count) {
  return guarded([&] {
    std::vector<std::vector<at::Tensor>> all{list(outs, count)};
    std::vector<at::Tensor> own{*in};
    (*group)->allgather(all, own)->wait();
  });
}

// Adds up in place.
char* vqd_all_reduce(intrusive_ptr<ProcessGroup>* group, at::Tensor* tensor) {
  return guarded([&] {
    std::vector<at::Tensor> own{*tensor};
    (*group)->allreduce(own)->wait();
  });
}

// Those of rank 0, in place.
char* vqd_broadcast(intrusive_ptr<ProcessGroup>* group, at::Tensor** tensors, size_t count) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto all = list(tensors, count);
    broadcast_coalesced(*group, all, 250 << 20, 0);
  });
}

char* vqd_reducer_new(intrusive_ptr<ProcessGroup>* group, at::Tensor** parameters, size_t count,
                      bool bf16, Gradients** out) {
  return guarded([&] {
    auto all = list(parameters, count);
    verify_params_across_processes(*group, all, std::nullopt);
    std::vector<bool> sparse(count, false);
    // One bucket until the first backward pass has shown the order of the gradients.
    auto [buckets, limits] = compute_bucket_assignment_by_size(
        all, {std::numeric_limits<size_t>::max() / 2}, sparse);
    std::reverse(buckets.begin(), buckets.end());
    auto made = std::make_unique<Gradients>();
    made->reducer = std::make_shared<Reducer>(
        all, buckets, *group, sparse, bucket_bytes, /*find_unused_parameters=*/false,
        /*gradient_as_bucket_view=*/true, std::unordered_map<size_t, std::string>{},
        first_bucket_bytes, /*skip_all_reduce_unused_params=*/false,
        /*use_python_reducer=*/false, /*bucket_bytes_cap_list=*/std::vector<int64_t>{});
    if (bf16) made->reducer->register_comm_hook(std::make_unique<Bf16Hook>(*group));
    made->logger = std::make_shared<Logger>(made->reducer);
    made->reducer->set_logger(std::weak_ptr<Logger>(made->logger));
    made->logger->set_construction_data_and_log("vqdiffusion", {}, -1, true, false, false);
    *out = made.release();
  });
}

// Before a forward pass; with `reduces` its backward pass ends with averaged gradients,
// without it adds to those at hand.
char* vqd_reducer_prepare(Gradients* gradients, bool reduces) {
  return guarded([&] {
    if (reduces) {
      gradients->logger->set_runtime_stats_and_log();
      gradients->reducer->prepare_for_forward();
    }
    gradients->reducer->rebuild_buckets();
    if (reduces) gradients->reducer->prepare_for_backward({});
  });
}

// After a backward pass that reduces.
char* vqd_reducer_check(Gradients* gradients) {
  return guarded([&] { gradients->reducer->check_finalized(); });
}

void vqd_reducer_free(Gradients* gradients) {
  gradients->logger.reset();
  delete gradients;
}

}
