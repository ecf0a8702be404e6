// A CUDA driver without a GPU: it notes what it is asked to launch and hands it to the test.
// With the name of a torch library, it is also the one function of torch's that is needed.

#include <stdint.h>
#include <string.h>

typedef int (*Listener)(const char* name, const char* image, const unsigned* sizes, void** given);

static Listener listener;
static int generation = 9, depth;
static struct {
    char name[64];
    const char* image;
    int shared;
} functions[256];
static int count;

void set_listener(Listener new_listener) { listener = new_listener; }
void set_generation(int new_generation) { generation = new_generation; }
int contexts_left_behind(void) { return depth; }

int cuDeviceGet(int* device, int ordinal) { return *device = 0, ordinal > 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    *value = generation;
    return attribute != 75 || device;
}
int cuDevicePrimaryCtxRetain(void** context, int device) { return *context = &depth, device; }
int cuCtxPushCurrent_v2(void* context) { return ++depth, context != &depth; }
int cuCtxPopCurrent_v2(void** context) { return *context = &depth, --depth < 0; }
int cuModuleLoadData(void** module, const void* image) {
    return *module = (void*)image, depth != 1;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
    functions[count].image = module;
    functions[count].shared = 48 * 1024;
    strncpy(functions[count].name, name, 63);
    *function = &functions[count++];
    return depth != 1;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
    functions[(typeof(&functions[0]))function - functions].shared = value;
    return attribute != 8;
}
int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                   void* stream, void** given, void** extra) {
    const int i = (int)((typeof(&functions[0]))function - functions);
    const unsigned sizes[] = {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared};
    if (depth != 1 || extra || stream != (void*)7 || (int)shared > functions[i].shared) return 1;
    return listener(functions[i].name, functions[i].image, sizes, given);
}
int cuGetErrorString(int error, const char** text) {
    return *text = "as the test wants it", !error;
}

int aoti_torch_get_current_cuda_stream(int device, void** stream) {
    return *stream = (void*)7, device > 0;
}
