// The decoder: rows of new tokens through all layers, to what was asked of them (logits.h).
#pragma once

#include <memory>
#include <vector>

#include "logits.h"
#include "key_values.h"
#include "model.h"
#include "operands.h"
#include "request.h"

namespace stapes {

class Decoder {
  public:
    Decoder(const Model& model, int n_threads);
    void run(const std::vector<Request*>& requests, Team& team);

  private:
    // Buffers for so many tokens at once.
    struct Space {
        Space(const Model& model, int n_tokens);
        int n_tokens;
        Operand rows, hidden_rows;
        Memory x, normalised, projected, mixed, hidden;
    };
    // Requests whose queries are attended together: one window's, to the same part of it.
    struct Group {
        Request* first;
        int first_token, n_tokens;
    };

    void take_requests(const std::vector<Request*>& requests);
    void prepare(Team& team);
    void own_blocks(Request& request);
    void embed(Request& request, int first_token);
    void normalise(const Norm& norm, Type type, Team& team);
    void take(const Memory& from, Operand& to, Type type, Team& team);
    void multiply(const Operand& from, const Linear& layer, const float* residual, float* c, std::size_t c_stride,
                  Activation activation, Team& team);
    void attend_self(int layer, Team& team);
    void attend_cross(int layer, Team& team);
    void attend_cross_head(int layer, int head, const Group& group, Scratch& scratch);
    float* raw_scores_of(Request& request, int layer, int head);
    Scratch& scratch(int thread) { return *scratches_[static_cast<std::size_t>(thread)]; }

    const Model& model_;
    const Kernels& kernels_;
    std::unique_ptr<Space> space_;
    Scratches scratches_;
    std::vector<Request*> requests_;  // those of one window side by side
    std::vector<int> first_tokens_;
    std::vector<Group> groups_;
    int n_tokens_ = 0;
    Logits logits_;
};

}  // namespace stapes
