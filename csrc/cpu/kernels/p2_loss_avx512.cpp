#include "cpu/kernels/p2_loss_kernel.h"

double gsd::p2_loss_avx512(const P2LossRun& run) { return p2_loss_any(run); }
