// What each instruction set implements; the table in table.cpp collects it.
#pragma once

#include "kernels.h"

namespace stapes::STAPES_ISA {

void multiply(const Product& p);
void layer_norm(const float* x, std::size_t x_stride, int n_rows, int d, const float* weight, const float* bias,
                void* y, Type y_type, std::size_t y_stride);
void quantize(const float* x, std::size_t x_stride, int n_rows, int d, std::uint8_t* y, std::size_t y_stride,
              float* scales);
void narrow(const float* x, std::size_t x_stride, int n_rows, int d, void* y, std::size_t y_stride);
void widen(const void* x, int n, float* y);
QuantizedRow quantize_weights(const float* x, int n, std::int8_t* y);
void store_keys(const BlockShape& shape, const float* x, std::size_t x_stride, int n, int position, void* block);
void store_values(const BlockShape& shape, const float* x, std::size_t x_stride, int n, int position, void* block);
void attend(const Attention& call);
void choose(const Sampling& call);
void mark_candidates(const Sampling& call, const float* errors, std::uint8_t* panels);
float log_sum_exp(const float* x, int n);
void log_mel(const float* samples, std::size_t n_frames, const float* filters, int n_mels, float* out,
             std::size_t out_stride);
void magnitudes(const float* samples, int n_columns, float* out);
void convolve(const Convolution& c);
void recur(const Recurrence& r);
double multiply_in_registers(Type type, std::int64_t n_rounds);
void read_through(const void* data, std::size_t n_bytes);

}  // namespace stapes::STAPES_ISA
