// A CUDA driver without a GPU, for two: it hands what it is asked to launch to the test. With the
// name of a torch library, it is also the one function of torch's that is needed.

#include <stdint.h>
#include <string.h>

typedef int (*Listener)(const char* name, const char* image, const unsigned* sizes, void** given);

static Listener listener;
static int generation = 9, refusal, capturing, contexts[2];
static _Atomic int preparing, count;
static _Thread_local int depth, mode;
static struct {
    char name[64];
    const char* image;
    int shared;
} functions[256];

void set_listener(Listener new_listener) { listener = new_listener; }
void set_generation(int new_generation) { generation = new_generation; }
// What loading a kernel gives, if not 0.
void set_refusal(int new_refusal) { refusal = new_refusal; }
// While a graph is captured, kernels are loaded by threads alone that have asked for a mode at
// least as relaxed as this: 1 of new drivers, 3, which there is not, of old ones.
void set_capturing(int new_capturing) { capturing = new_capturing; }
// Contexts and modes that this thread has set and not set back.
int left_behind(void) { return depth + mode; }
// Calls that only the first launch of a kernel may make.
int preparations(void) { return preparing; }

int cuDriverGetVersion(int* version) { return *version = 12040, 0; }
int cuDeviceGet(int* device, int ordinal) { return ++preparing, *device = ordinal, ordinal >> 1; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    return ++preparing, *value = generation, attribute != 75 || device >> 1;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
    return ++preparing, *context = &contexts[device], device >> 1;
}
int cuCtxPushCurrent_v2(void* context) {
    return ++depth, context != &contexts[0] && context != &contexts[1];
}
int cuCtxPopCurrent_v2(void** context) { return *context = contexts, --depth < 0; }
int cuThreadExchangeStreamCaptureMode(int* new_mode) {
    const int before = mode;
    mode = *new_mode;
    *new_mode = before;
    return 0;
}
int cuModuleLoadData(void** module, const void* image) {
    ++preparing;
    *module = (void*)image;
    return capturing > mode ? 900 : depth != 1 ? depth : refusal;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
    const int i = count++;
    functions[i].image = module;
    functions[i].shared = 48 * 1024;
    strncpy(functions[i].name, name, 63);
    *function = &functions[i];
    return ++preparing, depth != 1;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
    functions[(typeof(&functions[0]))function - functions].shared = value;
    return ++preparing, attribute != 8;
}
int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                   void* stream, void** given, void** extra) {
    const int i = (int)((typeof(&functions[0]))function - functions);
    const unsigned sizes[] = {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared};
    if (depth != 1 || extra || stream != (void*)7 || (int)shared > functions[i].shared) return 1;
    return listener && listener(functions[i].name, functions[i].image, sizes, given);
}
int cuGetErrorString(int error, const char** text) {
    return *text = "as the test wants it", !error;
}

int aoti_torch_get_current_cuda_stream(int device, void** stream) {
    return *stream = (void*)7, device >> 1;
}
