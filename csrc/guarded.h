#pragma once
// Entry points return null on success, else a message for vqd_free.
#include <c10/util/Exception.h>

#include <cstring>
#include <exception>

template <class F>
char* guarded(F&& f) {
  try {
    f();
    return nullptr;
  } catch (const c10::Error& e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("an exception of unknown kind");
  }
}
