// The five best classes of images, by a file of mmrepvgg export --with-preprocess --softmax, as mmrepvgg predict gives
// them. README.md beside this file says how to build it.
//
// classify NET.param LABELS.txt SHORT_EDGE SIZE IMAGE...

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <string>

#include <net.h>
#include <simpleocv.h>

#include "resize.h"

static int fail(const std::string& message) {
    fprintf(stderr, "classify: error: %s\n", message.c_str());
    return 1;
}

int main(int argc, char** argv) {
    const int edge = argc > 3 ? atoi(argv[3]) : 0, size = argc > 4 ? atoi(argv[4]) : 0;
    if (argc < 6 || size < 1 || edge < size) {
        fprintf(stderr, "usage: classify NET.param LABELS.txt SHORT_EDGE SIZE IMAGE...   (SHORT_EDGE >= SIZE > 0)\n");
        return 2;
    }
    const std::string param = argv[1], weights = param.substr(0, param.rfind(".param")) + ".ncnn.bin";
    ncnn::Net net;
    // by default ncnn stores and computes in 16 bits where the CPU can
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = false;
    net.opt.use_bf16_packed = net.opt.use_bf16_storage = false;
    if (net.load_param(param.c_str())) return fail(param + " can't be loaded");
    if (net.load_model(weights.c_str())) return fail(weights + " can't be loaded");
    std::vector<std::string> labels;
    std::ifstream file(argv[2]);
    for (std::string line; std::getline(file, line);) labels.push_back(line);

    int status = 0;
    for (int number = 5; number < argc; ++number) {
        const std::string path = argv[number];
        const cv::Mat image = cv::imread(path, cv::IMREAD_COLOR);  // BGR
        if (image.empty()) {
            status = fail(path + " can't be read");
            continue;
        }
        const size_t num_bytes = size_t(3) * image.cols * image.rows;
        const Picture picture = resize_short_edge({image.cols, image.rows, {image.data, image.data + num_bytes}}, edge);
        const int left = std::lrint((picture.width - size) / 2.0), top = std::lrint((picture.height - size) / 2.0);
        const ncnn::Mat input = ncnn::Mat::from_pixels_roi(
            picture.pixels.data(), ncnn::Mat::PIXEL_BGR, picture.width, picture.height, left, top, size, size);

        ncnn::Mat scores;
        ncnn::Extractor run = net.create_extractor();
        if (run.input("images", input) || run.extract("scores", scores)) return fail(param + " can't be run");
        if (labels.size() != size_t(scores.w))
            return fail(std::string(argv[2]) + " must have a line for each of the classes");
        std::vector<int> order(scores.w);
        std::iota(order.begin(), order.end(), 0);
        const int topk = std::min(5, scores.w);
        std::partial_sort(order.begin(), order.begin() + topk, order.end(),
                          [&](int a, int b) { return scores[a] > scores[b]; });
        printf("%s:", path.c_str());
        for (int rank = 0; rank < topk; ++rank)
            printf("%s %s %.6f", rank ? ";" : "", labels[order[rank]].c_str(), scores[order[rank]]);
        printf("\n");
    }
    return status;
}
