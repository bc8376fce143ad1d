// Resizing as Pillow does it, which the ImageNet recipes use for their test images: a triangle filter that is as wide
// as the pixels of the result, so that a smaller image has no aliases. Other resizings change the probabilities.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

struct Picture {
    int width, height;
    std::vector<unsigned char> pixels;  // height x width x 3
};

// Resize the width, and give the result transposed: twice that is a whole resizing, width first.
inline Picture resize_width_and_transpose(const Picture& from, int width) {
    Picture to{from.height, width, std::vector<unsigned char>(size_t(3) * width * from.height)};
    const double scale = double(from.width) / width, radius = std::max(scale, 1.0);
    std::vector<double> filter;
    std::vector<int> weights;  // whole numbers as in Pillow, which round as there
    for (int x = 0; x < width; ++x) {
        const double center = (x + 0.5) * scale;
        const int first = std::max(int(center - radius + 0.5), 0);
        const int last = std::min(int(center + radius + 0.5), from.width);
        filter.clear();
        for (int i = first; i < last; ++i) filter.push_back(std::max(1 - std::abs((i + 0.5 - center) / radius), 0.0));
        const double sum = std::accumulate(filter.begin(), filter.end(), 0.0);
        weights.clear();
        for (double value : filter) weights.push_back(int(value / sum * (1 << 22) + 0.5));
        for (int y = 0; y < from.height; ++y)
            for (int channel = 0; channel < 3; ++channel) {
                int value = 1 << 21;
                for (int i = first; i < last; ++i)
                    value += weights[i - first] * from.pixels[(size_t(y) * from.width + i) * 3 + channel];
                to.pixels[(size_t(x) * from.height + y) * 3 + channel] = (unsigned char)(value >> 22);
            }
    }
    return to;
}

inline Picture resize_short_edge(const Picture& from, int edge) {
    const bool is_upright = from.width < from.height;
    const int width = is_upright ? edge : int(double(edge) * from.width / from.height);
    const int height = is_upright ? int(double(edge) * from.height / from.width) : edge;
    if (width == from.width && height == from.height) return from;
    return resize_width_and_transpose(resize_width_and_transpose(from, width), height);
}
