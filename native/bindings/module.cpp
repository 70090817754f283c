// Python's way into the library: check dtypes and layouts, let go of the lock, call, translate errors; nothing else.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <tuple>

#include "../network/network.h"
#include "arrays.h"
#include "kernels_binding.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using stapes::Sampling;
using stapes::Network;
using stapes::Request;
using stapes::Row;
using stapes::Window;
using stapes::python::FloatTable;
using stapes::python::Floats;
using stapes::python::given;
using stapes::python::HalfTable;
using stapes::python::Ids;
using stapes::python::kernels_of;

std::vector<std::string> isa_names() {
    int n = 0;
    const auto* const* all = stapes::usable_kernels(&n);
    std::vector<std::string> names;
    for (int i = 0; i < n; ++i) names.emplace_back(all[i]->name);
    return names;
}

stapes::Memory padded(const Floats& values, int n) {
    if (values.shape(0) > static_cast<std::size_t>(n)) throw std::invalid_argument("more values than outputs");
    stapes::Memory memory(static_cast<std::size_t>(stapes::round_up(n, stapes::PANEL)) * sizeof(float));
    std::memcpy(memory.as(), values.data(), values.nbytes());
    return memory;
}

// A request keeps what it points at: its row, its window, its forbidden ids.
struct HeldRequest : Request {
    std::shared_ptr<Row> held_row;
    std::shared_ptr<Window> held_window;
    nb::object held_permanent;
};

// stapes._native.Model: a network, its weights and what steps on it.
class BoundNetwork {
  public:
    BoundNetwork(const std::vector<int>& sizes, const std::string& precision, const std::string& isa, int n_threads)
        : network_(sizes_of(sizes), precision_of(precision), kernels_of(isa), n_threads) {}

    const Network& network() const { return network_; }

    void make_linear(const std::string& name, int n, int k, bool as_float16) {
        network_.model().make_linear(name, n, k, as_float16 ? stapes::Type::f16 : stapes::Type::f32);
    }

    template <class Table>
    void pack(const std::string& name, int first, const Table& rows) {
        const auto w = network_.model().linear(name).weight.view();
        if (first < 0 || rows.shape(0) + static_cast<std::size_t>(first) > static_cast<std::size_t>(w.n) ||
            rows.shape(1) != static_cast<std::size_t>(w.k))
            throw std::invalid_argument("weights of " + name + " have another shape");
        if (std::is_same_v<Table, FloatTable> && w.type == stapes::Type::f16)
            throw std::invalid_argument(name + " is stored as float16");
        const nb::gil_scoped_release unlocked;
        const auto n = static_cast<int>(rows.shape(0));
        if constexpr (std::is_same_v<Table, FloatTable>) network_.pack(name, first, n, rows.data());
        else network_.pack(name, first, n, reinterpret_cast<const stapes::f16*>(rows.data()));
    }

    void set_bias(const std::string& name, const Floats& bias) {
        auto& linear = network_.model().linear(name);
        linear.bias = padded(bias, linear.weight.view().n);
    }

    void set_norm(const std::string& name, const Floats& weight, const Floats& bias) {
        network_.model().norm(name).weight = padded(weight, network_.model().sizes.n_state);
        network_.model().norm(name).bias = padded(bias, network_.model().sizes.n_state);
    }

    void set_positions(bool of_encoder, const FloatTable& table) {
        const auto& sizes = network_.model().sizes;
        const auto n = static_cast<std::size_t>(of_encoder ? sizes.n_audio_ctx : sizes.n_text_ctx),
                   d = static_cast<std::size_t>(sizes.n_state);
        if (table.shape(0) != n || table.shape(1) != d) throw std::invalid_argument("positions have another shape");
        const auto stride = static_cast<std::size_t>(network_.model().stride);
        stapes::Memory memory(n * stride * sizeof(float));
        for (std::size_t i = 0; i < n; ++i)
            std::memcpy(memory.as() + i * stride, table.data() + i * d, d * sizeof(float));
        (of_encoder ? network_.model().audio_positions : network_.model().text_positions) = std::move(memory);
    }

    std::shared_ptr<Window> encode(const FloatTable& mel) {
        const auto& sizes = network_.model().sizes;
        if (mel.shape(0) != static_cast<std::size_t>(sizes.n_mels) ||
            mel.shape(1) != 2 * static_cast<std::size_t>(sizes.n_audio_ctx))
            throw std::invalid_argument("mel has another shape");
        const nb::gil_scoped_release unlocked;
        return network_.encode(mel.data());
    }

    std::shared_ptr<Row> fork(const Row& row, int length) const { return network_.fork(row, length); }

    void step(const nb::list& requests) {
        requests_.clear();
        for (nb::handle one : requests) requests_.push_back(nb::cast<HeldRequest*>(one));
        const nb::gil_scoped_release unlocked;
        network_.step(requests_);
    }

  private:
    static stapes::Sizes sizes_of(const std::vector<int>& s) {
        if (s.size() != 9) throw std::invalid_argument("nine sizes make a model");
        for (const int one : s)
            if (one < 1) throw std::invalid_argument("sizes are positive");
        return {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8]};
    }
    static stapes::Precision precision_of(const std::string& name) {
        if (name == "float32") return stapes::Precision::float32;
        if (name == "bfloat16") return stapes::Precision::bfloat16;
        if (name == "int8") return stapes::Precision::int8;
        throw std::invalid_argument("no precision is called " + name);
    }

    Network network_;
    std::vector<Request*> requests_;  // of the step that is going on
};

void make_request(HeldRequest* made, std::shared_ptr<Row> row, std::shared_ptr<Window> window, int length,
                  std::vector<std::int32_t> tokens, std::pair<int, int> within) {
    if (within.first < 0 || within.first % stapes::PANEL || within.first >= within.second ||
        within.second > window->n_blocks * stapes::PANEL)
        throw std::invalid_argument("this is no part of a window");
    new (made) HeldRequest{};
    made->held_row = std::move(row);
    made->held_window = std::move(window);
    made->row = made->held_row.get();
    made->window = made->held_window.get();
    made->length = length;
    made->tokens = std::move(tokens);
    made->within = {within.first, within.second};
}

void choose(HeldRequest& request, const std::string& how, int n, double temperature, std::vector<double> uniforms,
            const Ids& permanent, const std::vector<std::pair<int, int>>& now, int vote_from) {
    request.chooses = true;
    Sampling& c = request.sampling;
    c.how = how == "best" ? Sampling::How::best : how == "draw" ? Sampling::How::draw : Sampling::How::top;
    c.n_chosen = n;
    c.temperature = temperature;
    request.uniforms = std::move(uniforms);
    request.held_permanent = nb::find(permanent);
    c.permanent = permanent.data();
    c.n_permanent = permanent.shape(0);
    request.now.reserve(now.size());
    for (const auto& [first, last] : now) request.now.push_back({first, last});
    c.vote_from = vote_from;
}

void look(HeldRequest& request, const std::vector<std::tuple<int, std::vector<std::int32_t>, int>>& probes,
          std::vector<int> logits_at, std::vector<std::pair<int, int>> attention, int n_audio_ctx) {
    for (const auto& [position, ids, below] : probes) {
        request.probe_positions.push_back(position);
        request.probe_ids.push_back(ids);
        request.probe_below.push_back(below);
    }
    request.logits_at = std::move(logits_at);
    request.attention = std::move(attention);
    request.attention_scores.resize(request.attention.size() * request.tokens.size() *
                                    static_cast<std::size_t>(n_audio_ctx));
}

nb::object log_mel(const std::string& isa, const Floats& samples, const FloatTable& filters) {
    constexpr std::size_t hop = 160, frame = 400, bins = 201;
    if (samples.shape(0) < frame || (samples.shape(0) - frame) % hop)
        throw std::invalid_argument("samples are not whole frames");
    if (filters.shape(1) != bins) throw std::invalid_argument("filters have another shape");
    const std::size_t n_frames = (samples.shape(0) - frame) / hop + 1, n_mels = filters.shape(0);
    std::vector<float> out(n_frames * n_mels);
    {
        const nb::gil_scoped_release unlocked;
        kernels_of(isa).log_mel(samples.data(), n_frames, filters.data(), static_cast<int>(n_mels), out.data(),
                                n_frames);
    }
    return nb::cast(given(std::move(out), {n_mels, n_frames}));
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "Kernels for processors: a transformer over arrays.";
    stapes::python::bind_kernels(m);
    stapes::python::bind_alignment(m);
    stapes::python::bind_speech(m);
    stapes::python::bind_peak(m);
    m.def("isa_names", &isa_names, "Instruction sets that can be used here, best first.");
    m.def("log_mel", &log_mel, "isa"_a, "samples"_a, "filters"_a);

    nb::class_<Window>(m, "Window");
    nb::class_<Row>(m, "Row").def(nb::init<>());
    nb::class_<HeldRequest>(m, "Request")
        .def("__init__", &make_request, "row"_a, "window"_a, "length"_a, "tokens"_a, "within"_a)
        .def("choose", &choose)
        .def("look", &look)
        .def_ro("ids", &HeldRequest::ids)
        .def_ro("logprobs", &HeldRequest::logprobs)
        .def_ro("probe_normalisers", &HeldRequest::probe_normalisers)
        .def("probe_logits",
             [](HeldRequest& r, std::size_t i) {
                 const std::size_t n = r.probe_logits.at(i).size();
                 return given(std::move(r.probe_logits.at(i)), {n});
             })
        .def("logits",
             [](HeldRequest& r) {
                 const std::size_t n = r.logits_at.size();
                 const std::size_t each = n ? r.logits.size() / n : 0;
                 return given(std::move(r.logits), {n, each});
             })
        .def("attention", [](HeldRequest& r, std::size_t n_audio_ctx) {
            return given(std::move(r.attention_scores), {r.attention.size(), r.tokens.size(), n_audio_ctx});
        });
    nb::class_<BoundNetwork>(m, "Model")
        .def(nb::init<const std::vector<int>&, const std::string&, const std::string&, int>(), "sizes"_a, "precision"_a,
             "isa"_a, "n_threads"_a)
        .def("make_linear", &BoundNetwork::make_linear, "name"_a, "n"_a, "k"_a, "as_float16"_a)
        .def("pack_float16", &BoundNetwork::pack<HalfTable>, "name"_a, "first"_a, "rows"_a)
        .def("pack_float32", &BoundNetwork::pack<FloatTable>, "name"_a, "first"_a, "rows"_a)
        .def("set_bias", &BoundNetwork::set_bias, "name"_a, "bias"_a)
        .def("set_norm", &BoundNetwork::set_norm, "name"_a, "weight"_a, "bias"_a)
        .def("set_positions", &BoundNetwork::set_positions, "of_encoder"_a, "table"_a)
        .def("encode", &BoundNetwork::encode, "mel"_a)
        .def("fork", &BoundNetwork::fork, "row"_a, "length"_a)
        .def("step", &BoundNetwork::step, "requests"_a)
        .def_prop_ro("stride", [](const BoundNetwork& one) { return one.network().model().stride; })
        .def_prop_ro("weight_bytes", [](const BoundNetwork& one) { return one.network().model().weight_bytes(); })
        .def_prop_ro("window_bytes", [](const BoundNetwork& one) { return one.network().window_bytes(); })
        .def_prop_ro("row_bytes", [](const BoundNetwork& one) { return one.network().row_bytes(); });
}
