#include "cuda/kernels.h"

#include <torch/csrc/stable/ops.h>

#include <map>
#include <mutex>
#include <utility>

#include "common/checks.h"
#include "cuda/driver.h"

// The images, as they lie in the file: no compiler reads megabytes of numbers with pleasure.
asm(".pushsection .rodata\n"
    ".balign 64\n"
    ".globl gsd_gpu_images\n"
    ".hidden gsd_gpu_images\n"
    "gsd_gpu_images:\n"
    ".incbin \"" GSD_GPU_IMAGES
    "\"\n"
    ".popsection\n");
extern "C" const unsigned char gsd_gpu_images[];

namespace gsd::cuda {
namespace {

constexpr Kernel kKernels[] = {
#include "gpu/kernels.inc"
};

constexpr int kOldest = 80;

// What the driver knows of a device, and has been given.
struct Gpu {
    Context context;
    int generation;  // the major number of the compute capability
    std::map<const Kernel*, Function> functions;
};

Gpu& gpu_of(int device) {
    static std::map<int, Gpu> gpus;
    const auto known = gpus.find(device);
    if (known != gpus.end()) return known->second;
    Gpu gpu;
    Device handle;
    check(driver().cuDeviceGet(&handle, device), "finding the GPU");
    check(driver().cuDeviceGetAttribute(&gpu.generation, kCapabilityMajor, handle),
          "asking for its compute capability");
    check(driver().cuDevicePrimaryCtxRetain(&gpu.context, handle), "sharing torch's context");
    return gpus.emplace(device, std::move(gpu)).first->second;
}

const Kernel& kernel_for(std::string_view name, const Variant& variant, int generation) {
    GSD_CHECK(10 * generation >= kOldest,
              "genselfdiff: the GPU kernels need a compute capability of 8.0 or newer; "
              "export the portable model instead");
    const Kernel* found = nullptr;
    for (const Kernel& kernel : kKernels) {
        if (kernel.name != name || kernel.element != variant.element ||
            kernel.sixteenths != variant.sixteenths) {
            continue;
        }
        if (kernel.capability / 10 == generation) return kernel;
        if (kernel.ptx) found = &kernel;
    }
    GSD_CHECK(found, "genselfdiff: ", std::string(name), " was not compiled");
    return *found;
}

// The context of a device is current while this lives.
class Entered {
  public:
    explicit Entered(Context context) { check(driver().cuCtxPushCurrent(context), "a context"); }
    ~Entered() {
        Context context;
        driver().cuCtxPopCurrent(&context);
    }
    Entered(const Entered&) = delete;
    Entered& operator=(const Entered&) = delete;
};

Function loaded(Gpu& gpu, const Kernel& kernel) {
    const auto known = gpu.functions.find(&kernel);
    if (known != gpu.functions.end()) return known->second;
    Module module;
    Function function;
    check(driver().cuModuleLoadData(&module, gsd_gpu_images + kernel.offset), "loading a kernel");
    check(driver().cuModuleGetFunction(&function, module, std::string(kernel.name).c_str()),
          "finding a kernel in its module");
    if (kernel.shared > kSharedBytesByRight) {
        check(driver().cuFuncSetAttribute(function, kMaxSharedBytes, kernel.shared),
              "getting a kernel its shared memory");
    }
    gpu.functions[&kernel] = function;
    return function;
}

}  // namespace

void launch(std::string_view name, const Variant& variant, const Grid& grid,
            std::vector<Parameter> parameters) {
    static std::mutex mutex;
    const std::lock_guard<std::mutex> lock(mutex);
    Gpu& gpu = gpu_of(variant.device);
    const Kernel& kernel = kernel_for(name, variant, gpu.generation);
    GSD_CHECK(static_cast<int>(parameters.size()) == kernel.given,
              "genselfdiff: ", std::string(name), " takes ", kernel.given, " parameters");
    parameters.resize(static_cast<size_t>(kernel.parameters), Parameter(nullptr));
    std::vector<void*> addresses;
    for (Parameter& parameter : parameters) addresses.push_back(parameter.address());
    const Entered entered(gpu.context);
    const Function function = loaded(gpu, kernel);
    Stream stream = nullptr;
    GSD_CHECK(driver().current_stream(variant.device, &stream) == 0,
              "genselfdiff: torch gives no stream");
    check(driver().cuLaunchKernel(
              function, static_cast<unsigned>(grid[0]), static_cast<unsigned>(grid[1]),
              static_cast<unsigned>(grid[2]), static_cast<unsigned>(32 * kernel.warps), 1, 1,
              static_cast<unsigned>(kernel.shared), stream, addresses.data(), nullptr),
          "launching a kernel");
}

Tensor aligned(const Tensor& tensor) {
    const bool good = reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
    return good ? tensor : torch::stable::clone(tensor);
}

}  // namespace gsd::cuda
