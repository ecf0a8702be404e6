#include "cpu/kernels/add_noise_kernel.h"

void gsd::add_noise_avx2(const AddNoiseRun& run) { add_noise_any(run); }
