// Launches from several threads, without a GPU: launch_from_threads LIBTORCH_CUDA. Compiled with
// csrc/cuda/kernels.cpp and a table of two kernels, and run by
// tests/kernels/launching/test_launch_from_threads.py, with a driver of fake_gpu.c.
//
// Prints the nanoseconds of a launch, of the first GPU alone and of two GPUs at once.

#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <functional>
#include <thread>
#include <vector>

#include "cuda/kernels.h"

namespace {

using gsd::Element;
using gsd::cuda::Kernel;
using gsd::cuda::launch;

constexpr int kThreads = 8, kLaunches = 200000;
std::atomic<int> arrived;

// A launch that ends when another GPU launches too.
int meet(const char*, const char*, const unsigned*, void**) {
    ++arrived;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (arrived < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    return arrived < 2;
}

void launch_on(int gpu, Kernel kernel) {
    const int32_t number = 1;
    launch(kernel, {gpu, Element::float32, 16, Element::float32}, {1, 1, 1},
           {&arrived, number, 1.0f});
}

void at_once(int threads, const std::function<void(int)>& work) {
    std::vector<std::thread> running;
    for (int i = 0; i < threads; ++i) running.emplace_back(work, i);
    for (std::thread& thread : running) thread.join();
}

double nanoseconds(int gpu) {
    timespec begin, end;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    for (int i = 0; i < kLaunches; ++i) launch_on(gpu, Kernel::first);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    return (1e9 * (end.tv_sec - begin.tv_sec) + end.tv_nsec - begin.tv_nsec) / kLaunches;
}

}  // namespace

int main(int, char** arguments) {
    void* fake = dlopen("libcuda.so.1", RTLD_NOW);
    if (!fake || !dlopen(arguments[1], RTLD_NOW)) return 2;
    const auto preparations = reinterpret_cast<int (*)()>(dlsym(fake, "preparations"));
    const auto listen = reinterpret_cast<void (*)(decltype(&meet))>(dlsym(fake, "set_listener"));

    // However many threads are the first, each GPU is found once and gets a kernel once.
    at_once(kThreads, [](int i) { launch_on(i % 2, Kernel::first); });
    if (preparations() != 2 * (3 + 2)) return 3;

    listen(meet);
    at_once(2, [](int i) { launch_on(i, Kernel::first); });

    listen(nullptr);
    double together[2];
    const double alone = nanoseconds(0);
    at_once(2, [&](int i) { together[i] = nanoseconds(i); });
    std::printf("%.0f %.0f %.0f\n", alone, together[0], together[1]);
    return 0;
}
