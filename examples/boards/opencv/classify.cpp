// The five best classes of images, by OpenCV's DNN module, from a file of mmrepvgg export --softmax --opset 17.
//
// classify MODEL.onnx LABELS.txt SHORT_EDGE SIZE IMAGE...

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include <opencv2/dnn.hpp>
#include <opencv2/imgcodecs.hpp>

#include "../../cpp/resize.h"

// RGB, as in the metadata of the file
static const cv::Scalar MEAN(123.675, 116.28, 103.53), STD(58.395, 57.12, 57.375);

int main(int argc, char** argv) {
    const int edge = argc > 3 ? atoi(argv[3]) : 0, size = argc > 4 ? atoi(argv[4]) : 0;
    if (argc < 6 || size < 1 || edge < size) {
        fprintf(stderr, "usage: classify MODEL.onnx LABELS.txt SHORT_EDGE SIZE IMAGE...   (SHORT_EDGE >= SIZE > 0)\n");
        return 2;
    }
    cv::dnn::Net net = cv::dnn::readNetFromONNX(argv[1]);
    std::vector<std::string> labels;
    std::ifstream file(argv[2]);
    for (std::string line; std::getline(file, line);) labels.push_back(line);

    for (int number = 5; number < argc; ++number) {
        const cv::Mat image = cv::imread(argv[number], cv::IMREAD_COLOR);
        if (image.empty()) {
            fprintf(stderr, "classify: error: %s can't be read\n", argv[number]);
            return 1;
        }
        Picture picture = resize_short_edge({image.cols, image.rows, {image.datastart, image.dataend}}, edge);
        const cv::Mat resized(picture.height, picture.width, CV_8UC3, picture.pixels.data());
        const int left = std::lrint((picture.width - size) / 2.0), top = std::lrint((picture.height - size) / 2.0);
        cv::Mat input = cv::dnn::blobFromImage(resized(cv::Rect(left, top, size, size)), 1, {}, MEAN, true);
        for (int channel = 0; channel < 3; ++channel)  // blobFromImage takes one number for all
            cv::Mat(size, size, CV_32F, input.ptr(0, channel)) /= STD[channel];

        net.setInput(input);
        cv::Mat order, scores = net.forward();
        cv::sortIdx(scores, order, cv::SORT_EVERY_ROW | cv::SORT_DESCENDING);
        if (labels.size() != size_t(scores.cols)) {
            fprintf(stderr, "classify: error: %s must have a line for each of the classes\n", argv[2]);
            return 1;
        }
        printf("%s:", argv[number]);
        for (int rank = 0; rank < std::min(5, scores.cols); ++rank) {
            const int label = order.at<int>(rank);
            printf("%s %s %.6f", rank ? ";" : "", labels[label].c_str(), scores.at<float>(label));
        }
        printf("\n");
    }
    return 0;
}
