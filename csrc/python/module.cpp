// genselfdiff._native: how the native code was built, and what it finds in this machine.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "cpu/isa.h"

namespace {

std::string compiler() {
#if defined(__clang__)
    return "Clang " __clang_version__;
#else
    return "GCC " __VERSION__;
#endif
}

std::vector<std::string> compiled_isas() {
    std::vector<std::string> names;
    for (gsd::Isa isa : gsd::compiled_isas()) names.emplace_back(gsd::name(isa));
    return names;
}

// The features that matter to the kernels, of today and to come.
std::vector<std::string> cpu_features() {
    std::vector<std::string> found;
#if defined(__x86_64__) || defined(_M_X64)
    // __builtin_cpu_supports takes nothing but literals.
#define GSD_FEATURE(feature) \
    if (__builtin_cpu_supports(feature)) found.emplace_back(feature)
    GSD_FEATURE("avx2");
    GSD_FEATURE("fma");
    GSD_FEATURE("avx512f");
    GSD_FEATURE("avx512bw");
    GSD_FEATURE("avx512dq");
    GSD_FEATURE("avx512vl");
    GSD_FEATURE("avx512vnni");
    GSD_FEATURE("avx512bf16");
#undef GSD_FEATURE
    if (gsd::may_use_tiles()) found.emplace_back("amx_bf16");
#endif
    return found;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "Build information of the native kernels, which lie beside this module.";
    m.attr("COMPILER") = compiler();
    m.attr("TORCH_VERSION") = GSD_TORCH_VERSION;
    m.attr("TRITON_VERSION") = GSD_TRITON_VERSION;  // empty: no GPU kernels
    m.attr("ISAS") = compiled_isas();
    m.def("cpu_features", &cpu_features, "Instruction-set extensions that this CPU has.");
    m.def(
        "selected_isa", [] { return std::string(gsd::name(gsd::selected_isa())); },
        "Instruction set that the kernels use; RuntimeError where GSD_CPU_ISA cannot be had.");
}
