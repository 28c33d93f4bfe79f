// Time and floating-point work of operators, by the callbacks of libtorch's own profiler.
#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <chrono>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <string_view>

#include "guarded.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Total {
  int64_t calls = 0;
  double seconds = 0;  // without those of operators inside
  double gflop = 0;
};

// An operator that runs.
struct Running : at::ObserverContext {
  Clock::time_point began;
  Running* around;
  double inside = 0;  // seconds of operators inside
  double gflop;
};

std::mutex lock;
std::map<std::string, Total> totals;
at::CallbackHandle handle = 0;
thread_local Running* innermost = nullptr;

// 10^9 multiplications and additions of the operators that make products, from their shapes.
double gflop_of(const at::RecordFunction& function) {
  const auto inputs = function.inputs();
  const std::string_view name = function.name();
  auto tensor = [&](size_t i) { return inputs.at(i).toTensor(); };
  double flop = 0;
  if (name == "mkldnn::_linear_pointwise") {
    const size_t weight = inputs.at(1).isTensor() && tensor(1).dim() == 2 ? 1 : 2;
    flop = 2.0 * tensor(0).numel() * tensor(weight).size(0);
  } else if (name == "aten::mm" || name == "aten::bmm") {
    flop = 2.0 * tensor(0).numel() * tensor(1).size(-1);
  } else if (name == "aten::addmm") {
    flop = 2.0 * tensor(1).numel() * tensor(2).size(-1);
  } else if (name == "vqd::attention" || name == "vqd::attention_backward") {
    // Two products forward; backward scores and four more.
    const double products = name == "vqd::attention" ? 2 : 5;
    flop = products * 2.0 * tensor(0).numel() * tensor(1).size(1);
  }
  return flop / 1e9;
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
  auto running = std::make_unique<Running>();
  running->gflop = gflop_of(function);
  running->around = innermost;
  innermost = running.get();
  running->began = Clock::now();
  return running;
}

void end(const at::RecordFunction& function, at::ObserverContext* context) {
  const auto running = static_cast<Running*>(context);
  if (!running) return;
  const double seconds = std::chrono::duration<double>(Clock::now() - running->began).count();
  innermost = running->around;
  if (innermost) innermost->inside += seconds;
  const std::lock_guard<std::mutex> guard(lock);
  Total& total = totals[function.name()];
  total.calls += 1;
  total.seconds += seconds - running->inside;
  total.gflop += running->gflop;
}

}  // namespace

extern "C" {

char* vqd_profile_start() {
  return guarded([] {
    TORCH_CHECK(!handle, "profile: one is running already");
    totals.clear();
    handle = at::addGlobalCallback(at::RecordFunctionCallback(begin, end).needsInputs(true));
  });
}

// Lines of name, calls, seconds and 10^9 operations, with tabs between, for vqd_free.
char* vqd_profile_stop() {
  if (handle) at::removeCallback(handle);
  handle = 0;
  std::ostringstream lines;
  const std::lock_guard<std::mutex> guard(lock);
  for (const auto& [name, total] : totals)
    lines << name << '\t' << total.calls << '\t' << total.seconds << '\t' << total.gflop << '\n';
  return strdup(lines.str().c_str());
}

}  // extern "C"
