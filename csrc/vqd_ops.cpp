// What the Rust bindings lack of libtorch: facts about the build, and operators
// that are reached through PyTorch's dispatcher.
#include <ATen/ATen.h>
#include <ATen/Version.h>
#include <dlfcn.h>
#include <torch/csrc/api/include/torch/version.h>

extern "C" {

const char* vqd_torch_version() { return TORCH_VERSION; }

const char* vqd_cpu_capability() {
  static const std::string name = at::get_cpu_capability();
  return name.c_str();
}

bool vqd_has_onednn() { return at::globalContext().hasMKLDNN(); }

bool vqd_has_gloo() {
  // An exported function of c10d's gloo back end.
  return dlsym(RTLD_DEFAULT, "_ZN4c10d16ProcessGroupGlooD1Ev") != nullptr;
}

}  // extern "C"
