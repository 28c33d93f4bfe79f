// Operators that the Rust bindings lack, reached through PyTorch's dispatcher.
#include <ATen/ATen.h>
extern "C" {
const char* vqd_torch_config() { static std::string s = at::show_config(); return s.c_str(); }
}
