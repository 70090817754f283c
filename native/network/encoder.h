// The encoder: a log-mel window to the decoder's cross-attention keys and values.
#pragma once

#include <memory>
#include <vector>

#include "key_values.h"
#include "model.h"
#include "operands.h"

namespace stapes {

class Encoder {
  public:
    Encoder(const Model& model, int n_threads);
    // mel: (n_mels, 2 * n_positions); n_positions: as Network::encode takes it.
    void run(const float* mel, int n_positions, Window& window, Team& team);

  private:
    // What one thread needs for a block of rows.
    struct Worker {
        Worker(const Model& model, int block, int widest);
        Scratch scratch;
        Operand rows, hidden_rows;
        Memory hidden, normalised, projected;
    };

    void end_mel();
    void take_mel(const float* mel, int first, int n);
    void convolve_first(int first, int n, Worker& worker);
    void convolve_second(int first, int n, Worker& worker);
    void project(int layer, int first, int n, Worker& worker);
    void attend(int layer, int head, int first, int n, Worker& worker);
    Type mixed_type(int layer) const;
    void finish(int layer, int first, int n, Worker& worker);
    void feed_forward(const Block& block, int first, int n, Worker& worker);
    void project_cross(int first, int n, Worker& worker, Window& window);
    void keep(const Rows& a, const Linear& layer, int first_panel, int first, int n, bool as_keys, int index,
              KeyValues& to, Worker& worker);

    const Model& model_;
    const Kernels& kernels_;
    int n_state_, padded_state_;
    int n_positions_;  // of the window that is being encoded
    std::size_t stride_;
    int block_;               // positions that a thread takes from one attention to the next together
    Memory mel_, convolved_;  // in the convolutions' type, a row of zeros on either side
    Memory x_, queries_;
    Memory mixed_;  // f32, or bf16 where the next product takes that
    KeyValues self_;
    std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace stapes
