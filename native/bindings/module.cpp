// Python's way into the library: check dtypes and layouts, let go of the lock, call, translate errors; nothing else.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <map>
#include <memory>
#include <stdexcept>
#include <tuple>

#include "../network/network.h"
#include "arrays.h"
#include "kernels_binding.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using stapes::Network;
using stapes::Range;
using stapes::Request;
using stapes::Row;
using stapes::Sampling;
using stapes::Window;
using stapes::python::Doubles;
using stapes::python::FloatTable;
using stapes::python::Floats;
using stapes::python::given;
using stapes::python::HalfTable;
using stapes::python::Ids;
using stapes::python::IntPairs;
using stapes::python::Ints;
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

// What a row asks for beside its choices: probes (position, ids, below), positions of whole logits, heads (layer,
// head), and the part of the window, as stapes/backends/base.py has them (RowExtras).
using Probe = std::tuple<int, std::vector<std::int32_t>, int>;
using Extras = std::tuple<std::vector<Probe>, std::vector<int>, std::vector<std::pair<int, int>>, std::pair<int, int>>;

// The arrays of one step, in the order of stapes/backends/base.py: StepBatch.
struct StepArrays {
    const Ints &lengths, &tokens, &token_ends, &choice_rows, &choice_positions, &methods, &n_chosen;
    const Doubles &temperatures, &uniforms;
    const std::vector<Ids>& permanents;
    const Ints& permanent_of;
    const IntPairs& now;
    const Ints &now_ends, &vote_from;

    void check(std::size_t n_rows) const {
        const std::size_t n = choice_rows.size();
        bool fits = lengths.size() == n_rows && token_ends.size() == n_rows && now_ends.size() == n;
        for (const Ints* one : {&choice_positions, &methods, &n_chosen, &permanent_of, &vote_from})
            fits &= one->size() == n;
        if (!fits || temperatures.size() != n) throw std::invalid_argument("the arrays of a step have other lengths");
    }
};

// stapes._native.Model: a network, its weights and what steps on it.
class BoundNetwork {
  public:
    BoundNetwork(const std::vector<int>& sizes, const std::string& precision, const std::string& isa, int n_threads)
        : network_(sizes_of(sizes), stapes::precision_of(precision), kernels_of(isa), n_threads) {}

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
        const std::size_t most = static_cast<std::size_t>(sizes.n_audio_ctx), n = mel.shape(1) / 2;
        if (mel.shape(0) != static_cast<std::size_t>(sizes.n_mels) || mel.shape(1) % 2 || n < 1 || n > most ||
            (n < most && n % stapes::PANEL))
            throw std::invalid_argument("mel has another shape");
        const nb::gil_scoped_release unlocked;
        return network_.encode(mel.data(), static_cast<int>(n));
    }

    std::shared_ptr<Row> fork(const Row& row, int length) const { return network_.fork(row, length); }

    // Returns ids, log-probabilities, and for each row with extras, by index: logits of its probes, their normalisers,
    // whole logits or None, and attention or None.
    nb::tuple step(const nb::list& rows, const nb::list& windows, const Ints& lengths, const Ints& tokens,
                   const Ints& token_ends, const Ints& choice_rows, const Ints& choice_positions, const Ints& methods,
                   const Ints& n_chosen, const Doubles& temperatures, const Doubles& uniforms,
                   const std::vector<Ids>& permanents, const Ints& permanent_of, const IntPairs& now,
                   const Ints& now_ends, const Ints& vote_from, const std::map<std::size_t, Extras>& extras) {
        const StepArrays arrays{lengths,      tokens,   token_ends,   choice_rows, choice_positions,
                                methods,      n_chosen, temperatures, uniforms,    permanents,
                                permanent_of, now,      now_ends,     vote_from};
        arrays.check(rows.size());
        const std::size_t n = rows.size();
        while (requests_.size() < n) requests_.push_back(std::make_unique<Request>());
        step_.clear();
        for (std::size_t i = 0; i < n; ++i) {
            Request& one = *requests_[i];
            one.clear();
            one.row = nb::cast<Row*>(rows[i]);
            one.window = nb::cast<Window*>(windows[i]);
            one.length = lengths.data()[i];
            one.tokens.assign(tokens.data() + (i ? token_ends.data()[i - 1] : 0), tokens.data() + token_ends.data()[i]);
            one.within = {0, positions_of(*one.window)};
            step_.push_back(&one);
        }
        std::vector<std::int32_t> ids;
        std::vector<float> logprobs;
        add_choices(arrays, ids, logprobs);
        for (const auto& [index, wanted] : extras) look(*requests_.at(index), wanted);
        {
            const nb::gil_scoped_release unlocked;
            network_.step(step_);
        }
        nb::dict answers;
        for (const auto& [index, wanted] : extras) answers[nb::int_(index)] = answer_of(*requests_[index]);
        const std::size_t n_ids = ids.size();
        return nb::make_tuple(given(std::move(ids), {n_ids}), given(std::move(logprobs), {n_ids}), answers);
    }

  private:
    static stapes::Sizes sizes_of(const std::vector<int>& s) {
        if (s.size() != 9) throw std::invalid_argument("nine sizes make a model");
        for (const int one : s)
            if (one < 1) throw std::invalid_argument("sizes are positive");
        return {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8]};
    }

    void add_choices(const StepArrays& a, std::vector<std::int32_t>& ids, std::vector<float>& logprobs) {
        const int n_vocab = network_.model().sizes.n_vocab;
        now_.clear();
        for (std::size_t i = 0; i < a.now.shape(0); ++i)
            now_.push_back({std::max(a.now.data()[2 * i], 0), std::min(a.now.data()[2 * i + 1], n_vocab)});
        std::size_t n_ids = 0, n_drawn = 0, first_now = 0;
        for (std::size_t i = 0; i < a.n_chosen.size(); ++i) n_ids += static_cast<std::size_t>(a.n_chosen.data()[i]);
        ids.resize(n_ids);
        logprobs.resize(n_ids);
        n_ids = 0;
        for (std::size_t i = 0; i < a.choice_rows.size(); ++i) {
            const Ids& permanent = a.permanents.at(static_cast<std::size_t>(a.permanent_of.data()[i]));
            const auto last_now = static_cast<std::size_t>(a.now_ends.data()[i]);
            if (last_now < first_now || last_now > now_.size()) throw std::invalid_argument("ranges end elsewhere");
            Sampling c{};
            c.how = static_cast<Sampling::How>(a.methods.data()[i]);
            c.n_chosen = a.n_chosen.data()[i];
            c.temperature = a.temperatures.data()[i];
            c.permanent = permanent.data();
            c.n_permanent = permanent.shape(0);
            c.now = now_.data() + first_now;
            c.n_now = last_now - first_now;
            c.vote_from = a.vote_from.data()[i];
            c.uniforms = a.uniforms.data() + n_drawn;
            c.ids = ids.data() + n_ids;
            c.logprobs = logprobs.data() + n_ids;
            requests_.at(static_cast<std::size_t>(a.choice_rows.data()[i]))
                ->choices.push_back({a.choice_positions.data()[i], c});
            first_now = last_now;
            n_ids += static_cast<std::size_t>(c.n_chosen);
            if (c.how == Sampling::How::draw) n_drawn += static_cast<std::size_t>(c.n_chosen);
        }
        if (n_drawn > a.uniforms.size()) throw std::invalid_argument("there are too few uniform numbers");
    }

    void look(Request& request, const Extras& wanted) const {
        const auto& [probes, logits_at, attention, within] = wanted;
        for (const auto& [position, ids, below] : probes) {
            request.probe_positions.push_back(position);
            request.probe_ids.push_back(ids);
            request.probe_below.push_back(below);
        }
        request.logits_at = logits_at;
        request.attention = attention;
        if (within.second) {  // else all of the window
            if (within.first < 0 || within.first % stapes::PANEL || within.first >= within.second ||
                within.second > positions_of(*request.window))
                throw std::invalid_argument("this is no part of a window");
            request.within = {within.first, within.second};
        }
        request.attention_scores.resize(attention.size() * request.tokens.size() *
                                        n_of(request.within.last - request.within.first));
    }

    nb::tuple answer_of(Request& one) const {
        nb::list probes;
        for (std::vector<float>& values : one.probe_logits) {
            const std::size_t n = values.size();
            probes.append(given(std::move(values), {n}));
        }
        const std::size_t n_logits = one.logits_at.size(), n_heads = one.attention.size(), n_tokens = one.tokens.size();
        nb::object logits = nb::none(), attention = nb::none();
        if (n_logits) logits = nb::cast(given(std::move(one.logits), {n_logits, n_of(network_.model().sizes.n_vocab)}));
        if (n_heads)
            attention = nb::cast(
                given(std::move(one.attention_scores), {n_heads, n_tokens, n_of(one.within.last - one.within.first)}));
        return nb::make_tuple(probes, one.probe_normalisers, logits, attention);
    }

    // A full window's last block holds fewer positions.
    int positions_of(const Window& window) const {
        return std::min(window.n_blocks * stapes::PANEL, network_.model().sizes.n_audio_ctx);
    }

    static std::size_t n_of(int n) { return static_cast<std::size_t>(n); }

    Network network_;
    std::vector<std::unique_ptr<Request>> requests_;  // kept, so that a step like the one before allocates nothing
    std::vector<Request*> step_;
    std::vector<Range> now_;
};

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
        .def("step", &BoundNetwork::step)
        .def_prop_ro("stride", [](const BoundNetwork& one) { return one.network().model().stride; })
        .def_prop_ro("weight_bytes", [](const BoundNetwork& one) { return one.network().model().weight_bytes(); })
        .def(
            "window_bytes", [](const BoundNetwork& one, int n) { return one.network().window_bytes(n); },
            "n_positions"_a)
        .def_prop_ro("row_bytes", [](const BoundNetwork& one) { return one.network().row_bytes(); });
}
