// The end of a process whose C++ exception nobody catches, such as memory that runs out in a
// thread of libtorch.
#include <unistd.h>

#include <exception>

namespace {
void (*report)(const char*) = nullptr;
}

extern "C" void vqd_on_terminate(void (*then)(const char*)) {
  report = then;
  std::set_terminate([] {
    try {
      if (auto uncaught = std::current_exception()) std::rethrow_exception(uncaught);
      report("ended for no known reason");
    } catch (const std::exception& e) {
      report(e.what());
    } catch (...) {
      report("an unknown C++ exception");
    }
    _exit(2);
  });
}
