// As much of the CUDA driver as launching a kernel takes. It is looked up at run time, so that the
// library is built without CUDA and loads where there is none.

#pragma once

#include <cstddef>
#include <cstdint>

namespace gsd::cuda {

// The driver's own types and numbers: its binary interface does not change.
using Result = int;
using Device = int;
using Context = void*;
using Module = void*;
using Function = void*;
using Stream = void*;
constexpr int kCapabilityMajor = 75;            // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
constexpr int kMaxSharedBytes = 8;              // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
constexpr int kCaptureRelaxed = 2;              // CU_STREAM_CAPTURE_MODE_RELAXED
constexpr Result kCapturing = 900;              // CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, and
constexpr Result kCapturingToo = 901;           // CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
constexpr int kSharedBytesByRight = 48 * 1024;  // what a kernel gets without asking

struct Driver {
    Result (*cuDriverGetVersion)(int*);  // of the newest CUDA that it knows
    Result (*cuDeviceGet)(Device*, int ordinal);
    Result (*cuDeviceGetAttribute)(int*, int attribute, Device);
    Result (*cuDevicePrimaryCtxRetain)(Context*, Device);
    Result (*cuCtxPushCurrent)(Context);
    Result (*cuCtxPopCurrent)(Context*);
    Result (*cuModuleLoadData)(Module*, const void* image);
    Result (*cuModuleGetFunction)(Function*, Module, const char* name);
    Result (*cuFuncSetAttribute)(Function, int attribute, int value);
    Result (*cuLaunchKernel)(Function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                             unsigned block_x, unsigned block_y, unsigned block_z,
                             unsigned shared_bytes, Stream, void** parameters, void** extra);
    Result (*cuThreadExchangeStreamCaptureMode)(int* mode);
    Result (*cuGetErrorString)(Result, const char**);
    // torch's, of a CUDA build: the stream that it has its own kernels on.
    int32_t (*current_stream)(int32_t device, Stream*);
};

// Raises an error that says what is missing.
const Driver& driver();

// What a result is in words.
const char* reason(Result result);

// Raises an error that says what failed, unless the result is 0.
void check(Result result, const char* what);

}  // namespace gsd::cuda
