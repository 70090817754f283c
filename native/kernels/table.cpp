// One instruction set's table of kernels.
#include "functions.h"
#include "recurrence.h"
#include "vec.h"

#define STAPES_TEXT_OF(name) #name
#define STAPES_TEXT(name) STAPES_TEXT_OF(name)

namespace stapes::STAPES_ISA {

const Kernels& kernels();
const Kernels& kernels() {
    static constexpr Kernels table{
        .name = STAPES_TEXT(STAPES_ISA),
        .multiplies_i8 = MULTIPLIES_I8,
        .multiplies_bf16 = MULTIPLIES_BF16,
        .prefers_i16 = PREFERS_I16,
        .has_amx = HAS_AMX,
        .activation_zero = ACTIVATION_ZERO,
        .multiply = multiply,
        .layer_norm = layer_norm,
        .quantize = quantize,
        .narrow = narrow,
        .widen = widen,
        .quantize_weights = quantize_weights,
        .store_keys = store_keys,
        .store_values = store_values,
        .attend = attend,
        .choose = choose,
        .mark_candidates = mark_candidates,
        .log_sum_exp = log_sum_exp,
        .log_mel = log_mel,
        .recurrent_units = RECURRENT_UNITS,
        .magnitudes = magnitudes,
        .convolve = convolve,
        .recur = recur,
        .multiply_in_registers = multiply_in_registers,
        .read_through = read_through,
    };
    return table;
}

}  // namespace stapes::STAPES_ISA
