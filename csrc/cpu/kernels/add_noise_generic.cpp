#include "cpu/kernels/add_noise_kernel.h"

void gsd::add_noise_generic(const AddNoiseRun& run) { add_noise_any(run); }
