// What the Rust bindings lack of libtorch: facts about the build, and operators
// that are reached through PyTorch's dispatcher.
#include <ATen/ATen.h>
#include <ATen/Version.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <dlfcn.h>
#include <torch/csrc/api/include/torch/version.h>

#include <cstdlib>
#include <cstring>

#include "guarded.h"

namespace {

// y = x W' + b in one oneDNN call, with an activation behind it ("none", "swish").
using Unary = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                         c10::string_view, c10::List<std::optional<at::Scalar>>,
                         std::optional<c10::string_view>);
// The weight in the layout that suits products of about `rows` rows.
using Pack = at::Tensor(const at::Tensor&, std::optional<c10::SymInt>);
// y = x W' + b + other.
using Binary = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                          const std::optional<at::Tensor>&, c10::string_view);

auto& pack() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mkldnn::_reorder_linear_weight", "")
                             .typed<Pack>();
  return op;
}

auto& unary() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                             .typed<Unary>();
  return op;
}

auto& binary() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mkldnn::_linear_pointwise", "binary")
                             .typed<Binary>();
  return op;
}

std::vector<at::Tensor> list(at::Tensor** tensors, size_t count) {
  std::vector<at::Tensor> out;
  out.reserve(count);
  for (size_t i = 0; i < count; i++) out.push_back(*tensors[i]);
  return out;
}

}  // namespace

extern "C" {

void vqd_free(char* message) { free(message); }

char* vqd_pack_weight(at::Tensor* weight, int64_t rows, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(pack().call(*weight, c10::SymInt(rows))); });
}

char* vqd_linear(at::Tensor* x, at::Tensor* weight, at::Tensor* bias, bool swish,
                 at::Tensor** out) {
  return guarded([&] {
    *out = new at::Tensor(unary().call(*x, *weight, *bias, swish ? "swish" : "none",
                                       c10::List<std::optional<at::Scalar>>(), std::nullopt));
  });
}

char* vqd_linear_add(at::Tensor* x, at::Tensor* residual, at::Tensor* weight, at::Tensor* bias,
                     at::Tensor** out) {
  return guarded([&] {
    *out = new at::Tensor(binary().call(*x, *residual, *weight, *bias, "add"));
  });
}

// One AdamW step over `count` parameters in one kernel (torch.optim.AdamW(fused=True)):
// decoupled weight decay, no AMSGrad. `steps` are f32 scalars that already count this step.
char* vqd_fused_adamw(at::Tensor** parameters, at::Tensor** gradients, at::Tensor** averages,
                      at::Tensor** square_averages, at::Tensor** steps, size_t count, double rate,
                      double beta1, double beta2, double weight_decay, double epsilon) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto all = [&](at::Tensor** tensors) { return list(tensors, count); };
    at::_fused_adamw_(all(parameters), all(gradients), all(averages), all(square_averages), {},
                      all(steps), rate, beta1, beta2, weight_decay, epsilon,
                      /*amsgrad=*/false, /*maximize=*/false);
  });
}

// The L2 norm of `count` tensors together.
char* vqd_foreach_norm(at::Tensor** tensors, size_t count, at::Tensor** out) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    *out = new at::Tensor(at::stack(at::_foreach_norm(list(tensors, count))).norm());
  });
}

char* vqd_foreach_scale(at::Tensor** tensors, size_t count, double factor) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_mul_(list(tensors, count), factor);
  });
}

// averages += weight * (values - averages)
char* vqd_foreach_lerp(at::Tensor** averages, at::Tensor** values, size_t count, double weight) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_lerp_(list(averages, count), list(values, count), weight);
  });
}

// torch.optim.Optimizer.zero_grad(set_to_none=True): the next backward pass hands its
// gradients over instead of adding them to zeros.
char* vqd_forget_gradients(at::Tensor** tensors, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; i++) tensors[i]->mutable_grad().reset();
  });
}

const char* vqd_torch_version() { return TORCH_VERSION; }

const char* vqd_cpu_capability() {
  static const std::string name = at::get_cpu_capability();
  return name.c_str();
}

void vqd_set_deterministic() {
  at::globalContext().setDeterministicAlgorithms(true, false);
  at::globalContext().setDeterministicCuDNN(true);
  at::globalContext().setBenchmarkCuDNN(false);
}

// Flash attention before cuDNN's, which libtorch prefers on Hopper and which plans anew for
// every new shape. Returns whether the order was taken.
bool vqd_flash_attention_first() {
  using at::SDPBackend;
  std::vector<int64_t> order;
  for (auto backend : {SDPBackend::flash_attention, SDPBackend::efficient_attention,
                       SDPBackend::math, SDPBackend::cudnn_attention, SDPBackend::overrideable})
    order.push_back(static_cast<int64_t>(backend));
  at::globalContext().setSDPPriorityOrder(order);
  return at::globalContext().sDPPriorityOrder()[0] == SDPBackend::flash_attention;
}

bool vqd_has_onednn() { return at::globalContext().hasMKLDNN(); }

bool vqd_has_gloo() {
  // An exported function of c10d's gloo back end.
  return dlsym(RTLD_DEFAULT, "_ZN4c10d16ProcessGroupGlooD1Ev") != nullptr;
}

}  // extern "C"
