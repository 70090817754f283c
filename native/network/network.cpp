#include "network.h"

#include <algorithm>

#include "decoder.h"
#include "encoder.h"

namespace stapes {

Network::Network(const Sizes& sizes, Precision precision, const Kernels& kernels, int n_threads)
    : model_(sizes, precision, kernels), n_threads_(n_threads), lease_(n_threads) {}

Network::~Network() = default;

std::size_t Network::text_bytes(BlockShape shape, int n_positions) const {
    return KeyValues::n_bytes(shape, model_.sizes.n_text_layer, model_.sizes.n_text_head,
                              round_up(n_positions, PANEL) / PANEL);
}

std::size_t Network::window_bytes(int n_positions) const { return text_bytes(model_.window_shape(), n_positions); }
std::size_t Network::row_bytes() const { return text_bytes(model_.text_shape(), model_.sizes.n_text_ctx); }

std::shared_ptr<Window> Network::encode(const float* mel, int n_positions) {
    if (!encoding_) encoding_ = std::make_unique<Encoder>(model_, n_threads_);
    Team team(n_threads_);
    auto window = fresh_window(n_positions);
    encoding_->run(mel, n_positions, *window, team);
    return window;
}

// Memory of a released window of this length is used again: fresh memory costs the system as much time as a layer costs
// us.
std::shared_ptr<Window> Network::fresh_window(int n_positions) {
    const int n_blocks = round_up(n_positions, PANEL) / PANEL;
    const auto is_free = [](const auto& one) { return one.use_count() == 1; };
    const auto found = std::find_if(windows_.begin(), windows_.end(),
                                    [&](const auto& one) { return is_free(one) && one->n_blocks == n_blocks; });
    auto window = found != windows_.end() ? *found : nullptr;
    std::erase_if(windows_, is_free);
    if (!window) {
        window = std::make_shared<Window>(model_.window_shape(), model_.sizes.n_text_layer, model_.sizes.n_text_head,
                                          n_blocks);
        windows_.push_back(window);
    }
    return window;
}

void Network::step(const std::vector<Request*>& requests) {
    if (requests.empty()) return;
    if (!decoding_) decoding_ = std::make_unique<Decoder>(model_, n_threads_);
    Team team(n_threads_);
    decoding_->run(requests, team);
}

std::shared_ptr<Row> Network::fork(const Row& row, int length) const {
    auto made = std::make_shared<Row>(row);
    made->blocks.resize(static_cast<std::size_t>(round_up(length, PANEL) / PANEL));
    return made;
}

}  // namespace stapes
