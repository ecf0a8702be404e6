#include "cuda/kernels.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <mutex>
#include <stdexcept>
#include <string>

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

constexpr Image kImages[] = {
#include "gpu/images.inc"
};

constexpr int kOldest = 8;  // of the generations: the major number of the compute capability
constexpr int kMostGpus = 128;
constexpr int kMostParameters = 32;
static_assert(std::size(kImages) == kKernels * kVariants * kTargets);
static_assert(std::size(kTiles) == kVariants * kTargets);

int variant_of(const Variant& variant) {
    const int dtypes =
        (variant.element == Element::bfloat16) + (variant.parameters == Element::bfloat16);
    const bool sixteenths = variant.channels % 16 == 0;
    return 3 * dtypes + sixteenths + (sixteenths && variant.channels <= kNarrow);
}

// What the driver knows of a GPU, and has been given. Whoever finds a function here finds the rest.
struct Gpu {
    std::mutex loading;
    Context context = nullptr;
    std::atomic<int> target = -1;  // generations 8 and 9, and the newer ones
    std::atomic<Function> functions[kKernels][kVariants];
};

Gpu& gpu_of(int device) {
    static Gpu gpus[kMostGpus];
    GSD_CHECK(device < kMostGpus, "genselfdiff: there are too many GPUs");
    return gpus[device];
}

const Image& image_of(const Gpu& gpu, Kernel kernel, int variant) {
    return kImages[(static_cast<int>(kernel) * kVariants + variant) * kTargets +
                   gpu.target.load(std::memory_order_relaxed)];
}

// What the driver says of an image that it cannot use.
bool refuses(Result result) {
    constexpr Result kResults[] = {200, 209, 218, 221, 222, 223};
    return std::find(std::begin(kResults), std::end(kResults), result) != std::end(kResults);
}

// The kernels cannot run on a GPU; the text is why.
class Unserved : public std::runtime_error {
  public:
    using runtime_error::runtime_error;
};

void find(Gpu& gpu, int device) {
    Device handle;
    int generation;
    check(driver().cuDeviceGet(&handle, device), "finding the GPU");
    check(driver().cuDeviceGetAttribute(&generation, kCapabilityMajor, handle),
          "asking for its compute capability");
    if (generation < kOldest) throw Unserved("they need a compute capability of 8.0 or newer");
    check(driver().cuDevicePrimaryCtxRetain(&gpu.context, handle), "sharing torch's context");
    gpu.target.store(std::min(generation - kOldest, static_cast<int>(kTargets) - 1),
                     std::memory_order_release);
}

int target_of(Gpu& gpu, int device) {
    const int known = gpu.target.load(std::memory_order_acquire);
    if (known >= 0) return known;
    const std::lock_guard<std::mutex> lock(gpu.loading);
    if (!gpu.context) find(gpu, device);
    return gpu.target.load(std::memory_order_relaxed);
}

std::string refusal(Result result) {
    int version = 0;
    driver().cuDriverGetVersion(&version);
    return "the driver, of CUDA " + std::to_string(version / 1000) + "." +
           std::to_string(version % 1000 / 10) + ", refuses them (" + reason(result) +
           "): update it";
}

// The context of a GPU is current while this lives.
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

// While this lives, loading a kernel disturbs no graph that any thread captures.
class Uncaptured {
  public:
    Uncaptured() {
        check(driver().cuThreadExchangeStreamCaptureMode(&mode_), "looking after captured graphs");
    }
    ~Uncaptured() { driver().cuThreadExchangeStreamCaptureMode(&mode_); }
    Uncaptured(const Uncaptured&) = delete;
    Uncaptured& operator=(const Uncaptured&) = delete;

  private:
    int mode_ = kCaptureRelaxed;
};

Function loaded(Gpu& gpu, int device, Kernel kernel, int variant) {
    const std::lock_guard<std::mutex> lock(gpu.loading);
    std::atomic<Function>& place = gpu.functions[static_cast<int>(kernel)][variant];
    if (const Function known = place.load(std::memory_order_relaxed)) return known;
    if (!gpu.context) find(gpu, device);
    const Image& image = image_of(gpu, kernel, variant);
    const Entered entered(gpu.context);
    const Uncaptured uncaptured;
    Module module;
    Function function;
    const Result result = driver().cuModuleLoadData(&module, gsd_gpu_images + image.offset);
    GSD_CHECK(result != kCapturing && result != kCapturingToo,
              "genselfdiff: this driver loads no kernel while a CUDA graph is captured: "
              "call the operation once before");
    if (refuses(result)) throw Unserved(refusal(result));
    check(result, "loading a kernel");
    check(driver().cuModuleGetFunction(&function, module, image.symbol),
          "finding a kernel in its module");
    if (image.shared > kSharedBytesByRight) {
        check(driver().cuFuncSetAttribute(function, kMaxSharedBytes, image.shared),
              "getting a kernel its shared memory");
    }
    place.store(function, std::memory_order_release);
    return function;
}

// What `ask` gives; where the kernels cannot run, an error that says what can.
template <class Ask>
auto served(const Ask& ask) {
    try {
        return ask();
    } catch (const Unserved& error) {
        gsd::fail("genselfdiff: the GPU kernels do not run here: ", error.what(),
                  "; a portable model file runs anyway");
    }
}

}  // namespace

void launch(Kernel kernel, const Variant& variant, const Grid& grid,
            std::initializer_list<Parameter> parameters) {
    const int kind = variant_of(variant);
    Gpu& gpu = gpu_of(variant.device);
    Function function =
        gpu.functions[static_cast<int>(kernel)][kind].load(std::memory_order_acquire);
    if (!function) function = served([&] { return loaded(gpu, variant.device, kernel, kind); });
    const Image& image = image_of(gpu, kernel, kind);
    GSD_CHECK(
        static_cast<int>(parameters.size()) == image.given && image.parameters <= kMostParameters,
        "genselfdiff: ", image.symbol, " takes ", image.given, " parameters");
    static const Parameter kNull(nullptr);
    void* addresses[kMostParameters];
    int count = 0;
    for (const Parameter& parameter : parameters) {
        addresses[count++] = const_cast<void*>(parameter.address());
    }
    while (count < image.parameters) addresses[count++] = const_cast<void*>(kNull.address());
    Stream stream = nullptr;
    GSD_CHECK(driver().current_stream(variant.device, &stream) == 0,
              "genselfdiff: torch gives no stream");
    const Entered entered(gpu.context);
    check(driver().cuLaunchKernel(function, static_cast<unsigned>(grid[0]),
                                  static_cast<unsigned>(grid[1]), static_cast<unsigned>(grid[2]),
                                  static_cast<unsigned>(32 * image.warps), 1, 1,
                                  static_cast<unsigned>(image.shared), stream, addresses, nullptr),
          "launching a kernel");
}

std::string obstacle(int64_t device) {
    try {
        driver();
    } catch (const std::exception& error) {
        return error.what();
    }
    try {
        loaded(gpu_of(static_cast<int>(device)), static_cast<int>(device), Kernel{}, 0);
    } catch (const Unserved& error) {
        return error.what();
    }
    return "";
}

const Tiles& tiles_of(const Variant& variant) {
    const int target = served([&] { return target_of(gpu_of(variant.device), variant.device); });
    return kTiles[variant_of(variant) * kTargets + target];
}

Tensor aligned(const Tensor& tensor) {
    const bool good = reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
    return good ? tensor : torch::stable::clone(tensor);
}

}  // namespace gsd::cuda

STABLE_TORCH_LIBRARY_IMPL(gsd, CompositeExplicitAutograd, m) {
    m.impl("gpu_obstacle", TORCH_BOX(&gsd::cuda::obstacle));
}
