// Which instruction set the kernels run with: the best one that is compiled in and that this CPU
// has, unless the environment variable GSD_CPU_ISA names another.

#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace gsd {

enum class Isa { generic, avx2, avx512, avx512_bf16, amx };

inline const char* name(Isa isa) {
    switch (isa) {
        case Isa::amx:
            return "amx";
        case Isa::avx512_bf16:
            return "avx512_bf16";
        case Isa::avx512:
            return "avx512";
        case Isa::avx2:
            return "avx2";
        default:
            return "generic";
    }
}

// From the slowest to the fastest.
inline std::vector<Isa> compiled_isas() {
    return {
        Isa::generic,
#ifdef GSD_HAVE_AVX2
        Isa::avx2,
#endif
#ifdef GSD_HAVE_AVX512
        Isa::avx512,
#endif
#ifdef GSD_HAVE_AVX512_BF16
        Isa::avx512_bf16,
#endif
#ifdef GSD_HAVE_AMX
        Isa::amx,
#endif
    };
}

#if defined(__x86_64__) && defined(__linux__)
// Whether there are tiles for bfloat16, and Linux lets this process use them, for which it wants to
// be asked.
inline bool may_use_tiles() {
    static const bool result = [] {
        unsigned int a, b, c, d;
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
        const bool tiles = d >> 24 & 1, bfloat16 = d >> 22 & 1;
        constexpr long kRequestPermission = 0x1023, kTileData = 18;
        return tiles && bfloat16 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
    }();
    return result;
}
#else
inline bool may_use_tiles() { return false; }
#endif

inline bool cpu_has(Isa isa) {
#if defined(__x86_64__) || defined(_M_X64)
    switch (isa) {
        case Isa::amx:
            return cpu_has(Isa::avx512_bf16) && may_use_tiles();
        case Isa::avx512_bf16:
            return cpu_has(Isa::avx512) && __builtin_cpu_supports("avx512bf16");
        case Isa::avx512:
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        case Isa::avx2:
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        default:
            return true;
    }
#else
    return isa == Isa::generic;
#endif
}

// Throws std::runtime_error where GSD_CPU_ISA asks for what is unknown, not compiled in, or not
// there.
inline Isa selected_isa() {
    const char* variable = std::getenv("GSD_CPU_ISA");
    const std::string wanted = variable ? variable : "";
    Isa best = Isa::generic;
    std::string available;
    for (Isa isa : compiled_isas()) {
        if (!cpu_has(isa)) continue;
        if (wanted == name(isa)) return isa;
        best = isa;
        if (!available.empty()) available += ", ";
        available += name(isa);
    }
    if (!wanted.empty()) {
        throw std::runtime_error("GSD_CPU_ISA=" + wanted +
                                 " is not available here; choose one of: " + available +
                                 ", or unset it");
    }
    return best;
}

// One kernel, compiled for each instruction set; null where it is not.
template <class Kernel>
struct Variants {
    Kernel* generic;
    Kernel* avx2;
    Kernel* avx512;
    Kernel* avx512_bf16;
    Kernel* amx;

    Kernel* selected() const {
        switch (selected_isa()) {
            case Isa::amx:
                return amx;
            case Isa::avx512_bf16:
                return avx512_bf16;
            case Isa::avx512:
                return avx512;
            case Isa::avx2:
                return avx2;
            default:
                return generic;
        }
    }
};

#ifdef GSD_HAVE_AVX2
#define GSD_AVX2_KERNEL(name) gsd::avx2::name
#else
#define GSD_AVX2_KERNEL(name) nullptr
#endif
#ifdef GSD_HAVE_AVX512
#define GSD_AVX512_KERNEL(name) gsd::avx512::name
#else
#define GSD_AVX512_KERNEL(name) nullptr
#endif
#ifdef GSD_HAVE_AVX512_BF16
#define GSD_AVX512_BF16_KERNEL(name) gsd::avx512_bf16::name
#else
#define GSD_AVX512_BF16_KERNEL(name) nullptr
#endif
#ifdef GSD_HAVE_AMX
#define GSD_AMX_KERNEL(name) gsd::amx::name
#else
#define GSD_AMX_KERNEL(name) nullptr
#endif
#define GSD_SELECT_KERNEL(name)                                             \
    gsd::Variants<decltype(gsd::generic::name)>{                            \
        gsd::generic::name, GSD_AVX2_KERNEL(name), GSD_AVX512_KERNEL(name), \
        GSD_AVX512_BF16_KERNEL(name), GSD_AMX_KERNEL(name)}                 \
        .selected()

}  // namespace gsd
