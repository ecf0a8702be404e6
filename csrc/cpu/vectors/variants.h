// A kernel file is compiled once for each instruction set, into the namespace of its name.
// This header is part of every one of them, so it must not define anything: a function that the
// linker merges could be that of an instruction set which the machine lacks.

#pragma once

#define GSD_DECLARE_KERNEL(result, name, ...) \
    namespace generic {                       \
    result name(__VA_ARGS__);                 \
    }                                         \
    namespace avx2 {                          \
    result name(__VA_ARGS__);                 \
    }                                         \
    namespace avx512 {                        \
    result name(__VA_ARGS__);                 \
    }                                         \
    namespace avx512_bf16 {                   \
    result name(__VA_ARGS__);                 \
    }                                         \
    namespace amx {                           \
    result name(__VA_ARGS__);                 \
    }
