// Attention of the kernel in attention.h on libtorch's tensors, threads and graph.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <dlfcn.h>
#include <torch/csrc/autograd/custom_function.h>

#include <atomic>
#include <cmath>
#include <cstdlib>

#include "attention.h"
#include "guarded.h"

namespace {

// Memory of a thread that grows to what was asked for.
class Scratch {
 public:
  ~Scratch() { std::free(data_); }
  void* at_least(size_t bytes) {
    if (bytes > bytes_) {
      std::free(data_);
      bytes_ = (bytes + 4095) / 4096 * 4096;
      data_ = std::aligned_alloc(64, bytes_);
      if (!data_) bytes_ = 0;
    }
    return data_;
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// libgomp's own entry point: the team is the one that libtorch computes with, whichever copy of
// the library that is.
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

Parallel parallel() {
  static const auto entry = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return entry;
}

int threads() { return at::in_parallel_region() || !parallel() ? 1 : at::get_num_threads(); }

// `part(index, scratch)` for every index below `parts`, each thread with `bytes` of scratch.
template <class Part>
void run_parts(int64_t parts, size_t bytes, const Part& part) {
  struct Team {
    const Part& part;
    const int64_t parts;
    const size_t bytes;
    std::atomic<int64_t> next{0};
    std::atomic<bool> out_of_memory{false};

    void help() {
      thread_local Scratch scratch;
      void* memory = scratch.at_least(bytes);
      if (!memory) {
        out_of_memory = true;
        return;
      }
      for (int64_t i; (i = next++) < parts;) part(i, memory);
    }
  } team{part, parts, bytes};
  if (threads() > 1) {
    parallel()([](void* team) { static_cast<Team*>(team)->help(); }, &team, 0, 0);
  } else {
    team.help();
  }
  TORCH_CHECK(!team.out_of_memory, "attention: out of memory");
}

attention::Rows rows(const at::Tensor& x) { return {x.data_ptr(), x.stride(0), x.stride(1)}; }

// Query, key and value: [B, N, D], [B, M, D] twice; a joined tensor [B, N, 3D] holds all three.
struct Inputs {
  at::Tensor q, k, v;

  explicit Inputs(at::TensorList given) {
    if (given.size() == 3) {
      q = given[0], k = given[1], v = given[2];
    } else {
      const int64_t width = given[0].size(2) / 3;
      q = given[0].narrow(2, 0, width);
      k = given[0].narrow(2, width, width);
      v = given[0].narrow(2, 2 * width, width);
    }
  }

  attention::Problem problem(int64_t heads, const at::Tensor& out, const at::Tensor& log_sum) const {
    const int64_t width = q.size(2) / heads;
    attention::Problem p;
    p.q = rows(q), p.k = rows(k), p.v = rows(v), p.out = rows(out);
    p.log_sum = log_sum.defined() ? log_sum.data_ptr<float>() : nullptr;
    p.batch = q.size(0), p.heads = heads, p.queries = q.size(1), p.keys = k.size(1);
    p.width = width;
    p.scale = 1 / std::sqrt(static_cast<double>(width));
    p.is_bf16 = q.scalar_type() == at::kBFloat16;
    return p;
  }
};

struct Attention : torch::autograd::Function<Attention> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, int64_t heads,
                            at::TensorList given) {
    const Inputs inputs(given);
    const at::Tensor& q = inputs.q;
    RECORD_FUNCTION("vqd::attention", std::vector<c10::IValue>({q, inputs.k}));
    at::Tensor log_sum, out = at::empty(q.sizes(), q.options());
    bool goes_back = false;
    for (const auto& x : given) goes_back |= x.requires_grad();
    if (goes_back) log_sum = at::empty({q.size(0), heads, q.size(1)}, q.options().dtype(at::kFloat));
    const auto problem = inputs.problem(heads, out, log_sum);
    const int64_t parts = attention::parts(problem, threads());
    run_parts(parts, attention::scratch_bytes(problem), [&](int64_t i, void* scratch) {
      attention::run(problem, i, parts, scratch);
    });
    if (goes_back) {
      torch::autograd::variable_list kept = given.vec();
      kept.insert(kept.end(), {out, log_sum});
      context->save_for_backward(std::move(kept));
      context->saved_data["heads"] = heads;
    }
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list arriving) {
    auto saved = context->get_saved_variables();
    const auto log_sum = saved.back(), out = saved[saved.size() - 2];
    saved.resize(saved.size() - 2);
    torch::autograd::variable_list wanted;
    for (const auto& x : saved) wanted.push_back(at::empty(x.sizes(), x.options()));
    const Inputs inputs(saved), gradients(wanted);
    RECORD_FUNCTION("vqd::attention_backward", std::vector<c10::IValue>({inputs.q, inputs.k}));
    const auto gradient_of_out = arriving[0].contiguous();
    const attention::Gradient gradient{
        inputs.problem(context->saved_data["heads"].toInt(), out, log_sum), rows(gradient_of_out),
        rows(gradients.q), rows(gradients.k), rows(gradients.v)};
    run_parts(attention::parts(gradient), attention::scratch_bytes(gradient),
              [&](int64_t i, void* scratch) { attention::run(gradient, i, scratch); });
    wanted.insert(wanted.begin(), at::Tensor());
    return wanted;
  }
};

}  // namespace

extern "C" {

// Whether the kernel can run here: not if libtorch was told to leave AVX-512 alone.
bool vqd_has_attention(bool is_bf16) {
  return attention::can(is_bf16) && at::get_cpu_capability() == "AVX512";
}

// q [B, N, D], k and v [B, M, D], or all three joined [B, N, 3D]; f32 or bf16 on the CPU, the
// last dimension without gaps -> [B, N, D].
char* vqd_attention(at::Tensor** inputs, size_t count, int64_t heads, at::Tensor** out) {
  return guarded([&] {
    std::vector<at::Tensor> list;
    for (size_t i = 0; i < count; i++) list.push_back(*inputs[i]);
    *out = new at::Tensor(Attention::apply(heads, at::TensorList(list)));
  });
}

}  // extern "C"
