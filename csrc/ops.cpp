// Every operation's schema, in one place. Registered here and not from Python, they are visible to
// TorchScript in a process that has loaded nothing but this library.

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(gsd, m) {
    m.def(
        "add_noise(Tensor x0, Tensor t, Tensor alpha_bars, int seed, int offset)"
        " -> (Tensor x_t, Tensor noise)");
    m.def("conv3x3(Tensor x, Tensor weight, Tensor? bias, Tensor? packed) -> Tensor");
    m.def("conv3x3_pack(Tensor weight) -> Tensor");
    m.def("conv3x3_weight_gradient(Tensor grad_y, Tensor x) -> Tensor");
    m.def("conv4x4(Tensor x, Tensor weight, Tensor? bias, bool enlarge) -> Tensor");
    m.def("conv4x4_weight_gradient(Tensor small, Tensor large) -> Tensor");
    // Why the kernels compiled for GPUs cannot run on that one; empty where they can.
    m.def("gpu_obstacle(int device) -> str");
    m.def(
        "group_norm_silu(Tensor x, Tensor weight, Tensor bias, int groups, Tensor? shift,"
        " Tensor? residual, float eps) -> (Tensor y, Tensor mean, Tensor rstd)");
    m.def(
        "group_norm_silu_backward(Tensor grad_y, Tensor x, Tensor weight, Tensor bias, Tensor mean,"
        " Tensor rstd) -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias, Tensor "
        "grad_shift)");
    m.def(
        "linear_attention(Tensor x, Tensor norm_weight, Tensor norm_bias, Tensor qkv_weight,"
        " Tensor out_weight, Tensor out_bias, Tensor out_norm_weight, Tensor out_norm_bias,"
        " int heads, float eps) -> (Tensor y, Tensor moments, Tensor k_lse, Tensor context)");
    m.def(
        "linear_attention_backward(Tensor grad_y, Tensor x, Tensor norm_weight, Tensor norm_bias,"
        " Tensor qkv_weight, Tensor out_weight, Tensor out_bias, Tensor out_norm_weight,"
        " Tensor out_norm_bias, Tensor moments, Tensor k_lse, Tensor context)"
        " -> (Tensor grad_x, Tensor grad_norm_weight, Tensor grad_norm_bias,"
        " Tensor grad_qkv_weight, Tensor grad_out_weight, Tensor grad_out_bias,"
        " Tensor grad_out_norm_weight, Tensor grad_out_norm_bias)");
    m.def(
        "multi_loss(Tensor logits, Tensor labels, Tensor? class_weights, bool pixel_form,"
        " float focal_gamma, int? ignore_label) -> (Tensor loss, Tensor grad_logits)");
    m.def(
        "p2_loss(Tensor pred, Tensor noise, Tensor t, Tensor weights, bool mean)"
        " -> (Tensor loss, Tensor grad_pred)");
}
