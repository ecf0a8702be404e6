// x_t = signal * x_0 + sigma * noise over a run of elements of one sample; see add_noise.cpp.

#pragma once

#include <cstdint>

#include "cpu/vectors/element.h"
#include "cpu/vectors/variants.h"

namespace gsd {

struct AddNoiseRun {
    Element element;       // of x0; uint8 gives float32 results, the others their own type
    const void* x0;        // first element of the run
    void* x_t;             // ditto
    void* noise;           // ditto
    int64_t count;         // elements in the run
    uint64_t first_block;  // index within the sample of the run's first element, divided by 4
    uint64_t sample;       // global index of the sample
    uint64_t seed;
    float signal;  // sqrt(abar_t)
    float sigma;   // sqrt(1 - abar_t)
};

GSD_DECLARE_KERNEL(void, add_noise, const AddNoiseRun& run)

}  // namespace gsd
