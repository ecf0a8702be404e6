#include "cpu/kernels/matrix_product.h"

#include "cpu/vectors/matrix.h"

void gsd::GSD_ISA::add_product(const gsd::FloatProduct& product) {
    multiply(Product<float>{.rows = product.rows,
                            .vectors = product.columns / kFloats,
                            .steps = product.steps,
                            .a = product.a,
                            .a_row = product.a_row,
                            .a_step = product.a_step,
                            .b = product.b,
                            .b_vector = kFloats,
                            .b_step = product.b_step,
                            .c = product.c,
                            .c_row = product.c_row,
                            .start = nullptr});
}
