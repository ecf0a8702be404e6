#include "cuda/driver.h"

#include <dlfcn.h>

#include "common/checks.h"

namespace gsd::cuda {
namespace {

void* opened(const char* name, int flags) {
    void* library = dlopen(name, flags);
    GSD_CHECK(library, "genselfdiff: ", name, " does not load: ", dlerror());
    return library;
}

template <class Pointer>
void look_up(Pointer& pointer, void* library, const char* name) {
    pointer = reinterpret_cast<Pointer>(dlsym(library, name));
    GSD_CHECK(pointer, "genselfdiff: the CUDA driver or torch has no ", name);
}

Driver found() {
    Driver result;
    void* cuda = opened("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    look_up(result.cuDriverGetVersion, cuda, "cuDriverGetVersion");
    look_up(result.cuDeviceGet, cuda, "cuDeviceGet");
    look_up(result.cuDeviceGetAttribute, cuda, "cuDeviceGetAttribute");
    look_up(result.cuDevicePrimaryCtxRetain, cuda, "cuDevicePrimaryCtxRetain");
    look_up(result.cuCtxPushCurrent, cuda, "cuCtxPushCurrent_v2");
    look_up(result.cuCtxPopCurrent, cuda, "cuCtxPopCurrent_v2");
    look_up(result.cuModuleLoadData, cuda, "cuModuleLoadData");
    look_up(result.cuModuleGetFunction, cuda, "cuModuleGetFunction");
    look_up(result.cuFuncSetAttribute, cuda, "cuFuncSetAttribute");
    look_up(result.cuLaunchKernel, cuda, "cuLaunchKernel");
    look_up(result.cuThreadExchangeStreamCaptureMode, cuda, "cuThreadExchangeStreamCaptureMode");
    look_up(result.cuGetErrorString, cuda, "cuGetErrorString");
    // Who has a CUDA tensor has loaded this already.
    void* torch_cuda = opened("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    look_up(result.current_stream, torch_cuda, "aoti_torch_get_current_cuda_stream");
    return result;
}

}  // namespace

const Driver& driver() {
    static const Driver result = found();
    return result;
}

const char* reason(Result result) {
    const char* text = "an error without a name";
    driver().cuGetErrorString(result, &text);
    return text;
}

void check(Result result, const char* what) {
    GSD_CHECK(result == 0, "genselfdiff: ", what, ": ", reason(result));
}

}  // namespace gsd::cuda
