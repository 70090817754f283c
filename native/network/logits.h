// From the decoder's last rows to what was asked of them: logits, probes, and the ids that are chosen.
//
// Where the vocabulary is in memory in 8 bits too, a row that only chooses is multiplied with those, and then exactly
// with the candidates: the panels that may decide the choice. It is the choice that all of the exact logits would give.
#pragma once

#include <memory>
#include <vector>

#include "model.h"
#include "operands.h"
#include "request.h"

namespace stapes {

class Logits {
  public:
    explicit Logits(const Model& model);
    // x: rows of all new tokens; first_tokens: where each request's begin.
    void compute(const std::vector<Request*>& requests, const std::vector<int>& first_tokens, const float* x,
                 Scratches& scratches, Team& team);

  private:
    // A row whose logits are wanted.
    struct Wanted {
        std::size_t request;
        int position;
        Choice* choice;  // null: the logits are looked at
    };
    // Rows that lie side by side and are multiplied with the same weights, and the ids that may be chosen or are looked
    // at.
    struct Stretch {
        int first = 0, last = 0;
        Range ids{0, 0};
        int n() const { return last - first; }
    };

    bool only_chooses(const Request& request) const;
    void list(const std::vector<Request*>& requests);
    void make_room();
    void normalise(const std::vector<int>& first_tokens, const float* x);
    void multiply(const Rows& rows, const Stretch& stretch, const Linear& vocabulary, Scratches& scratches, Team& team);
    void rescore(Scratches& scratches, Team& team);
    void find_candidates(Choice& choice, int row, Scratch& scratch);
    void rescore_panels(int row, Range panels, Scratch& scratch);
    void forbid_outside(const Stretch& stretch, int row);
    void write_results(Request& request, int row, Scratch& scratch);
    Sampling& sampling_of(Choice& choice, int row, Scratch& scratch);
    float* logits_of(int row) { return logits_.as() + static_cast<std::size_t>(row) * logits_stride_; }

    const Model& model_;
    const Kernels& kernels_;
    int n_panels_;
    std::size_t logits_stride_;
    std::vector<float> steps_;  // (n_panels): of the approximate vocabulary; empty if there is none
    std::vector<Wanted> wanted_;
    std::vector<int> first_wanted_;  // of each request
    Stretch exact_, approximate_;
    std::size_t room_ = 0;  // rows that the memory is for
    Memory x_, normalised_, logits_, errors_, candidates_;
    std::unique_ptr<Operand> rows_, approximate_rows_;
};

}  // namespace stapes
