// An encoder-decoder transformer on the kernels: encode windows, step decoder rows. It knows sizes and arrays; what the
// tokens mean, it does not know. It owns the model, the memory of windows and a share of the thread pool.
//
// Threads: calls on one network come from one thread at a time. A window or a row lives as long as a pointer to it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "key_values.h"
#include "model.h"
#include "pool.h"
#include "request.h"

namespace stapes {

class Encoder;
class Decoder;

class Network {
  public:
    Network(const Sizes& sizes, Precision precision, const Kernels& kernels, int n_threads);
    ~Network();

    // To fill in the weights; after the first window they stay as they are.
    Model& model() { return model_; }
    const Model& model() const { return model_; }
    // Model::pack, with the network's threads.
    template <class Source>
    void pack(const std::string& name, int first, int n_rows, const Source* rows) {
        Team team(n_threads_);
        model_.pack(name, first, n_rows, rows, team);
    }

    std::size_t window_bytes(int n_positions) const;
    std::size_t row_bytes() const;

    // mel: (n_mels, 2 * n_positions); n_positions: n_audio_ctx, or a multiple of PANEL below it.
    std::shared_ptr<Window> encode(const float* mel, int n_positions);
    std::shared_ptr<Row> fork(const Row& row, int length) const;
    void step(const std::vector<Request*>& requests);

  private:
    std::size_t text_bytes(BlockShape shape, int n_positions) const;
    std::shared_ptr<Window> fresh_window(int n_positions);

    Model model_;
    int n_threads_;
    PoolLease lease_;
    std::vector<std::shared_ptr<Window>> windows_;  // all that are in use, and one that is free
    std::unique_ptr<Encoder> encoding_;             // made with the first window, and the decoder with the first step
    std::unique_ptr<Decoder> decoding_;
};

}  // namespace stapes
