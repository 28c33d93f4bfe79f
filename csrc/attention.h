#pragma once
// softmax(scale * q k') v of many heads and its gradient, on CPUs with AVX-512, for f32 and bf16.
#include <cstddef>
#include <cstdint>

namespace attention {

// One of q, k, v and the output: rows of `heads * width` elements, heads side by side. Strides
// are in elements.
struct Rows {
  void* data;
  int64_t batch_stride;
  int64_t row_stride;
};

struct Problem {
  Rows q, k, v, out;
  // The natural logarithm of the softmax's denominator, f32 [batch, heads, queries]; may be null.
  float* log_sum;
  int64_t batch, heads, queries, keys, width;
  float scale;
  bool is_bf16;
};

// The backward pass: `of.out` and `of.log_sum` are as the forward pass left them.
struct Gradient {
  Problem of;
  Rows out;      // arriving
  Rows q, k, v;  // wanted
};

// Whether this CPU has the instructions that the element type needs.
bool can(bool is_bf16);

// A problem falls into independent parts, some for each of about `threads` threads; a gradient
// into one for each head.
int64_t parts(const Problem& problem, int64_t threads);
int64_t parts(const Gradient& gradient);

// Bytes of scratch memory, aligned to 64, that a part needs.
size_t scratch_bytes(const Problem& problem);
size_t scratch_bytes(const Gradient& gradient);

// Evaluates part `index` of `parts`.
void run(const Problem& problem, int64_t index, int64_t parts, void* scratch);
void run(const Gradient& gradient, int64_t index, void* scratch);

}  // namespace attention
