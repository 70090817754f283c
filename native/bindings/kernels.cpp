// Single kernels over NumPy arrays, each to be held against its NumPy twin on every instruction set. For tests alone:
// every call packs and copies, and what comes back is float32 or integers with the columns behind the last one still
// there.
#include "kernels_binding.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>

#include "../network/operands.h"
#include "arrays.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace stapes::python {
namespace {

using FloatsOut = nb::ndarray<nb::numpy, float>;
using IntsOut = nb::ndarray<nb::numpy, std::int32_t>;

std::size_t size(int n) { return static_cast<std::size_t>(n); }

void require(bool holds, const char* otherwise) {
    if (!holds) throw std::invalid_argument(otherwise);
}

Type type_of(const std::string& name) {
    for (int i = 0; i < N_TYPES; ++i)
        if (name == traits_of(Type{static_cast<std::uint8_t>(i)}).name) return Type{static_cast<std::uint8_t>(i)};
    throw std::invalid_argument("no type is called " + name);
}

// Activations as the network keeps them: rows of whole panels and two more, zero behind the last value.
std::size_t stride_of(int d) { return size(row_stride(d)); }

Memory in_rows(const FloatTable& x) {
    const std::size_t n = x.shape(0), d = x.shape(1), stride = stride_of(static_cast<int>(d));
    Memory memory(n * stride * sizeof(float));
    for (std::size_t i = 0; i < n; ++i) std::memcpy(memory.as() + i * stride, x.data() + i * d, d * sizeof(float));
    return memory;
}

Memory padded(const Floats& values, int n) {
    require(values.shape(0) == size(n), "a vector has another length than the rows it is for");
    Memory memory(size(round_up(n, PANEL)) * sizeof(float));
    std::memcpy(memory.as(), values.data(), values.nbytes());
    return memory;
}

// Columns first..first+n-1 of rows of f32 or bf16.
FloatsOut out_rows(const Memory& from, Type type, int n_rows, std::size_t stride, int first, int n) {
    std::vector<float> values;
    values.reserve(size(n_rows) * size(n));
    for (std::size_t at = size(first); at < size(n_rows) * stride; at += stride)
        for (std::size_t i = at; i < at + size(n); ++i)
            values.push_back(type == Type::f32 ? from.as()[i] : to_float(from.as<bf16>()[i]));
    return given(std::move(values), {size(n_rows), size(n)});
}

template <class Table>
Matrix packed(const Kernels& kernels, Type type, const Table& weights) {
    require(weights.shape(0) > 0 && weights.shape(1) > 0, "no weights");
    const int n = static_cast<int>(weights.shape(0));
    Matrix matrix(type, n, static_cast<int>(weights.shape(1)), kernels);
    Team team(1);
    if constexpr (std::is_same_v<Table, FloatTable>) {
        require(type != Type::f16, "weights that are stored as float16 come as float16's bits");
        matrix.pack(0, n, weights.data(), team);
    } else {
        matrix.pack(0, n, reinterpret_cast<const f16*>(weights.data()), team);
    }
    return matrix;
}

Activation activation_of(const std::string& name) {
    require(name == "none" || name == "gelu" || name == "rough_gelu", "no such activation");
    return name == "none" ? Activation::none : name == "gelu" ? Activation::gelu : Activation::rough_gelu;
}

template <class Table>
FloatsOut multiply(const std::string& isa, const std::string& type_name, const FloatTable& a, const Table& weights,
                   const std::optional<Floats>& bias, const std::string& activation,
                   const std::optional<FloatTable>& residual, const std::string& result, int first_panel,
                   int last_panel) {
    const Kernels& kernels = kernels_of(isa);
    const Type type = type_of(type_name), c_type = type_of(result), row_type = row_type_of(kernels, type);
    require(a.shape(1) == weights.shape(1), "rows and weights differ in their inner dimension");
    const int m = static_cast<int>(a.shape(0)), n = static_cast<int>(weights.shape(0)),
              k = static_cast<int>(a.shape(1));
    const Matrix matrix = packed(kernels, type, weights);
    const Weights view = matrix.view();
    require(0 <= first_panel && first_panel <= last_panel && last_panel <= view.n_panels(),
            "panels that are not there");
    require(c_type == Type::f32 || c_type == Type::bf16, "a product is f32 or bf16");
    require(!residual || (residual->shape(0) == a.shape(0) && residual->shape(1) == size(n)),
            "the residual has another shape");
    Operand rows(kernels, m, k);
    rows.take(in_rows(a).as(), 0, m, row_type);
    const Memory bias_row = bias ? padded(*bias, n) : Memory(), added = residual ? in_rows(*residual) : Memory();
    Memory c(size(m) * stride_of(n) * sizeof(float)), scratch(product_scratch(k));
    Product p{};
    p.a = rows.rows(row_type);
    p.n_rows = m;
    p.w = &view;
    p.first_panel = first_panel;
    p.last_panel = last_panel;
    p.bias = bias ? bias_row.as() : nullptr;
    p.activation = activation_of(activation);
    p.residual = residual ? added.as() + first_panel * PANEL : nullptr;
    p.c = c.bytes() + first_panel * PANEL * size_of(c_type);
    p.c_type = c_type;
    p.c_stride = stride_of(n);
    p.scratch = scratch.bytes();
    kernels.multiply(p);
    return out_rows(c, c_type, m, stride_of(n), first_panel * PANEL, (last_panel - first_panel) * PANEL);
}

// The weights as the products see them, packed and read back.
template <class Table>
FloatsOut stored_weights(const std::string& isa, const std::string& type, const Table& weights) {
    const Matrix matrix = packed(kernels_of(isa), type_of(type), weights);
    std::vector<float> values(weights.size());
    for (std::size_t i = 0; i < weights.shape(0); ++i)
        matrix.unpack(static_cast<int>(i), values.data() + i * weights.shape(1));
    return given(std::move(values), {weights.shape(0), weights.shape(1)});
}

FloatsOut layer_norm(const std::string& isa, const FloatTable& x, const Floats& weight, const Floats& bias,
                     const std::string& result) {
    const Kernels& kernels = kernels_of(isa);
    const Type type = type_of(result);
    require(type == Type::f32 || type == Type::bf16, "a norm is f32 or bf16");
    require(x.shape(1) > 0, "no values");
    const int m = static_cast<int>(x.shape(0)), d = static_cast<int>(x.shape(1));
    const Memory from = in_rows(x), w = padded(weight, d), b = padded(bias, d);
    Memory y(size(m) * stride_of(d) * sizeof(float));
    kernels.layer_norm(from.as(), stride_of(d), m, d, w.as(), b.as(), y.bytes(), type, stride_of(d));
    return out_rows(y, type, m, stride_of(d), 0, round_up(d, PANEL));
}

// Rows as whole numbers of steps, and what one step of each row means.
std::tuple<IntsOut, FloatsOut> quantize(const std::string& isa, const FloatTable& x) {
    const Kernels& kernels = kernels_of(isa);
    const int m = static_cast<int>(x.shape(0)), d = static_cast<int>(x.shape(1)), whole = round_up(d, PANEL);
    const std::size_t stride = stride_of(d);
    const Memory from = in_rows(x);
    Memory y(size(m) * 2 * stride);
    std::vector<float> scales(size(m));
    kernels.quantize(from.as(), stride, m, d, y.as<std::uint8_t>(), stride, scales.data());
    const auto half = [&](std::size_t at) {
        return kernels.activation_zero ? y.as<std::uint8_t>()[at] - kernels.activation_zero : y.as<std::int8_t>()[at];
    };
    std::vector<std::int32_t> steps;
    for (std::size_t row = 0; row < size(m); ++row) {
        for (std::size_t i = 0; i < size(whole); ++i) {
            const std::size_t at = row * 2 * stride;
            if (kernels.multiplies_i8) steps.push_back(256 * half(at + i) + half(at + stride + i));
            else steps.push_back((y.as<std::int16_t>() + at / 2)[interleaved(static_cast<int>(i))]);
        }
    }
    return {given(std::move(steps), {size(m), size(whole)}), given(std::move(scales), {size(m)})};
}

FloatsOut narrow(const std::string& isa, const FloatTable& x) {
    const int m = static_cast<int>(x.shape(0)), d = static_cast<int>(x.shape(1));
    const Memory from = in_rows(x);
    Memory y(size(m) * stride_of(d) * sizeof(float));
    kernels_of(isa).narrow(from.as(), stride_of(d), m, d, y.bytes(), stride_of(d));
    return out_rows(y, Type::bf16, m, stride_of(d), 0, round_up(d, PANEL));
}

// Keys or values in blocks, stored a few positions at a time.
std::vector<Memory> in_blocks(const Kernels& kernels, const BlockShape& shape, const FloatTable& x, bool as_keys,
                              int at_a_time) {
    std::vector<Memory> blocks;
    const Memory rows = in_rows(x);
    const int n = static_cast<int>(x.shape(0));
    for (int first = 0; first < n;) {
        const int position = first % PANEL, count = std::min({at_a_time, n - first, PANEL - position});
        if (position == 0) blocks.emplace_back(as_keys ? shape.key_bytes() : shape.value_bytes());
        const float* from = rows.as() + size(first) * stride_of(shape.width);
        (as_keys ? kernels.store_keys : kernels.store_values)(shape, from, stride_of(shape.width), count, position,
                                                              blocks.back().bytes());
        first += count;
    }
    return blocks;
}

std::vector<const void*> addresses(const std::vector<Memory>& blocks) {
    std::vector<const void*> found;
    for (const Memory& one : blocks) found.push_back(one.bytes());
    return found;
}

// What the queries mix, and the raw scores: (queries, 0) if they are not wanted.
std::tuple<FloatsOut, FloatsOut> attend(const std::string& isa, const std::string& type_name, const FloatTable& queries,
                                        const FloatTable& keys, const FloatTable& values, int first_visible,
                                        bool wants_scores, const std::string& result, int stored_at_a_time,
                                        bool rough) {
    const Kernels& kernels = kernels_of(isa);
    const BlockShape shape{type_of(type_name), static_cast<int>(queries.shape(1))};
    const Type out_type = type_of(result);
    require(shape.type != Type::f16, "keys are not stored as f16");
    require(out_type == Type::f32 || out_type == Type::bf16, "what is mixed is f32 or bf16");
    require(shape.width > 0 && keys.shape(1) == queries.shape(1) && values.shape(1) == queries.shape(1),
            "widths differ");
    require(keys.shape(0) > 0 && keys.shape(0) == values.shape(0), "as many keys as values, and at least one");
    require(first_visible > 0 && stored_at_a_time > 0, "each query sees a key");
    const std::vector<Memory> key_blocks = in_blocks(kernels, shape, keys, true, stored_at_a_time);
    const std::vector<Memory> value_blocks = in_blocks(kernels, shape, values, false, stored_at_a_time);
    const auto key_addresses = addresses(key_blocks), value_addresses = addresses(value_blocks);
    const Memory query_rows = in_rows(queries);
    const std::size_t stride = stride_of(shape.width), n_keys = keys.shape(0), n_queries = queries.shape(0);
    Memory out(n_queries * stride * sizeof(float)), scratch(attention_scratch(shape.width));
    std::vector<float> scores(wants_scores ? n_queries * n_keys : 0);
    Attention call{};
    call.shape = shape;
    call.scale = 1.0f / std::sqrt(static_cast<float>(shape.width));
    call.queries = query_rows.as();
    call.query_stride = stride;
    call.n_queries = static_cast<int>(n_queries);
    call.keys = key_addresses.data();
    call.values = value_addresses.data();
    call.n_keys = static_cast<int>(n_keys);
    call.first_visible = first_visible;
    call.out = out.bytes();
    call.out_type = out_type;
    call.out_stride = stride;
    call.raw_scores = wants_scores ? scores.data() : nullptr;
    call.scratch = scratch.bytes();
    call.rough = rough;
    kernels.attend(call);
    return {out_rows(out, out_type, call.n_queries, stride, 0, shape.width),
            given(std::move(scores), {n_queries, wants_scores ? n_keys : 0})};
}

// A choice among a copy of the logits, all but where its ids go.
struct Choice {
    Choice(const Floats& given_logits, const std::string& how, int n, const Ids& permanent,
           const std::vector<std::pair<int, int>>& now, int vote_from)
        : logits(given_logits.data(), given_logits.data() + given_logits.size()) {
        const int n_logits = static_cast<int>(logits.size());
        for (const auto& [first, last] : now) {
            require(0 <= first && last <= n_logits, "a range outside the logits");
            ranges.push_back({first, last});
        }
        for (std::size_t i = 0; i < permanent.size(); ++i)
            require(0 <= permanent(i) && permanent(i) < n_logits, "an id outside the logits");
        require(n_logits > 0 && (how == "draw" || (0 < n && n <= n_logits)) && vote_from <= n_logits,
                "that cannot be chosen");
        c.logits = logits.data();
        c.n = n_logits;
        c.permanent = permanent.data();
        c.n_permanent = permanent.size();
        c.now = ranges.data();
        c.n_now = ranges.size();
        c.vote_from = vote_from;
        c.how = how == "best" ? Sampling::How::best : how == "draw" ? Sampling::How::draw : Sampling::How::top;
        c.n_chosen = n;
        scratch = Memory(sampling_scratch(c));
        c.scratch = scratch.bytes();
    }
    Choice(const Choice&) = delete;
    std::vector<float> logits;
    std::vector<Range> ranges;
    Memory scratch;
    Sampling c{};
};

// Ids, their log-probabilities, and what the logits became.
std::tuple<std::vector<std::int32_t>, std::vector<float>, FloatsOut> choose(
    const std::string& isa, const Floats& logits, const std::string& how, int n, double temperature,
    const std::vector<double>& uniforms, const Ids& permanent, const std::vector<std::pair<int, int>>& now,
    int vote_from) {
    const int n_chosen = how == "draw" ? static_cast<int>(uniforms.size()) : how == "best" ? 1 : n;
    Choice choice(logits, how, n_chosen, permanent, now, vote_from);
    std::vector<std::int32_t> ids(size(n_chosen));
    std::vector<float> logprobs(size(n_chosen));
    choice.c.temperature = temperature;
    choice.c.uniforms = uniforms.data();
    choice.c.ids = ids.data();
    choice.c.logprobs = logprobs.data();
    kernels_of(isa).choose(choice.c);
    return {std::move(ids), std::move(logprobs), given(std::move(choice.logits), {logits.size()})};
}

// Which panels of logits are candidates, 1 or 0.
IntsOut mark_candidates(const std::string& isa, const Floats& logits, const Floats& errors, int n, const Ids& permanent,
                        const std::vector<std::pair<int, int>>& now, int vote_from) {
    Choice choice(logits, "top", n, permanent, now, vote_from);
    const std::size_t n_panels = errors.size();
    require(n_panels == size(round_up(choice.c.n, PANEL) / PANEL), "an error for each panel");
    std::vector<std::uint8_t> panels(n_panels);
    kernels_of(isa).mark_candidates(choice.c, errors.data(), panels.data());
    return given(std::vector<std::int32_t>(panels.begin(), panels.end()), {n_panels});
}

template <class Table>
void bind_products(nb::module_& m) {
    m.def("multiply", &multiply<Table>, "isa"_a, "type"_a, "a"_a, "weights"_a, "bias"_a.none(), "activation"_a,
          "residual"_a.none(), "result"_a, "first_panel"_a, "last_panel"_a);
    m.def("stored_weights", &stored_weights<Table>, "isa"_a, "type"_a, "weights"_a);
}

}  // namespace

void bind_kernels(nb::module_& m) {
    nb::module_ kernels = m.def_submodule("kernels", "Single kernels over arrays, for tests.");
    kernels.def(
        "multiplies",
        [](const std::string& isa) {
            return std::pair(kernels_of(isa).multiplies_i8, kernels_of(isa).multiplies_bf16);
        },
        "isa"_a, "Whether a set multiplies rows of i8, and rows of bf16.");
    bind_products<FloatTable>(kernels);
    bind_products<HalfTable>(kernels);
    kernels.def("layer_norm", &layer_norm, "isa"_a, "x"_a, "weight"_a, "bias"_a, "result"_a);
    kernels.def("quantize", &quantize, "isa"_a, "x"_a);
    kernels.def("narrow", &narrow, "isa"_a, "x"_a);
    kernels.def("attend", &attend, "isa"_a, "type"_a, "queries"_a, "keys"_a, "values"_a, "first_visible"_a,
                "wants_scores"_a, "result"_a, "stored_at_a_time"_a, "rough"_a = false);
    kernels.def("choose", &choose, "isa"_a, "logits"_a, "how"_a, "n"_a, "temperature"_a, "uniforms"_a, "permanent"_a,
                "now"_a, "vote_from"_a);
    kernels.def("mark_candidates", &mark_candidates, "isa"_a, "logits"_a, "errors"_a, "n"_a, "permanent"_a, "now"_a,
                "vote_from"_a);
    kernels.def(
        "log_sum_exp",
        [](const std::string& isa, const Floats& x) {
            return kernels_of(isa).log_sum_exp(x.data(), static_cast<int>(x.size()));
        },
        "isa"_a, "x"_a);
}

}  // namespace stapes::python
