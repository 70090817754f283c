// Keys and values in memory: of an encoded window, and of a decoder row (its KV cache).
#pragma once

#include <memory>
#include <vector>

#include "../kernels/kernels.h"
#include "memory.h"

namespace stapes {

// Keys and values of many positions, for every layer and head: layer by layer, head by head, block by block.
struct KeyValues {
    KeyValues(BlockShape shape, int n_layers, int n_heads, int n_blocks);
    static std::size_t n_bytes(BlockShape shape, int n_layers, int n_heads, int n_blocks);
    BlockShape shape;
    int n_heads, n_blocks;
    Memory memory;
    std::byte* keys(int layer, int head, int block);
    std::byte* values(int layer, int head, int block);
};

// What the decoder reads of an encoded window: cross-attention keys and values.
using Window = KeyValues;

// A decoder row's self-attention keys and values, in blocks of PANEL positions that forks share until one writes.
struct Row { std::vector<std::shared_ptr<KeyValues>> blocks; };

}  // namespace stapes
