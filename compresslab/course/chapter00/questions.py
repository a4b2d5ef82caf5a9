"""Chapter 00: the questions, each wrong option with a reply of its own, and the numbers to predict."""

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(
        id="0.q1", workshop=True,
        prompt="A paper reports 98.1 % for its pruned network and 97.9 % for the dense one, on the same "
               "2,000 test images. "
               "22 images are right with the pruned network only, 18 with the dense network only. What "
               "follows?",
        options=(
            Option("nothing", "The two networks cannot be told apart by this test",
                   "Yes. The difference is 4 images of 2,000, and the 40 images on which they differ could "
                   "have fallen "
                   "otherwise: 0.2 points, with a margin of about 0.6 points to each side. The interval "
                   "holds 0.", correct=True),
            Option("better", "Pruning improved this network by 0.2 points",
                   "0.2 points is what these 2,000 images say. With 2,000 others, 18 and 22 could as well "
                   "be 20 and 20: the "
                   "margin is 1.96 sqrt(40) / 2000, about 0.6 points."),
            Option("equal", "Pruning changed nothing: the networks are equally good",
                   "Not distinguishable is not equal. The interval reaches from about -0.4 to +0.8 points: "
                   "half a point lost "
                   "and half a point gained are both possible. To claim equality you need more images, not "
                   "fewer."),
            Option("unpaired", "Each accuracy is uncertain by 0.6 points, so the two intervals must be "
                               "compared: they overlap, "
                               "so the networks are equal",
                   "Overlapping intervals are the wrong test for two networks on the same images. Most "
                   "images are easy for both or hard "
                   "for both and cancel; count only those on which they differ. And no test of this kind "
                   "shows equality."))),
    Question(
        id="0.q2", workshop=True,
        prompt="With 80 % zeros your sparse file is about 4.3 times smaller, not 5 times. Where did the "
               "rest go?",
        options=(
            Option("mask", "Into the mask: one bit for every weight, kept or not",
                   "Yes: each weight costs 1 bit to say whether it is there, and 32 more if it is: 1 + 0.2 "
                   "* 32 = 7.4 bits instead "
                   "of 32, a ratio of 4.3. The mask also sets a ceiling: even with no weight left the ratio "
                   "could not exceed 32.",
                   correct=True),
            Option("header", "Into the names and shapes at the beginning of the file",
                   "Those are a few hundred bytes here, far less than one percent of the file. They matter "
                   "at a ratio of 100, not at 4."),
            Option("biases", "Into the biases, which were not made sparse",
                   "They are stored in full, but there are only 410 of them beside 266,200 weights: 1,640 "
                   "bytes. Look at what is "
                   "stored for every single weight."),
            Option("zeros", "Into the zeros, which are still stored",
                   "The values hold no zero any more: their number is the number of nonzeros. But something "
                   "else is stored for "
                   "every weight, also for those that are gone."))),
    Question(
        id="0.q3",
        prompt="Why does SqueezeNet, with 50 times fewer weights, need more multiplications than AlexNet?",
        options=(
            Option("reuse", "Its weights are in convolutions, used once per position; AlexNet's are mostly "
                            "in linear layers, used once",
                   "Yes. MACs = weights times positions. A weight of an early convolution works thousands "
                   "of times per image, a weight "
                   "of a linear layer once. Removing the linear layers saves bytes, and hardly any "
                   "operations.", correct=True),
            Option("deeper", "It has more layers",
                   "It has, but the number of layers as such costs nothing: a layer costs its weights times "
                   "the positions at which "
                   "they are used."),
            Option("bug", "The counter counts zeros and padding",
                   "It counts padding for both networks alike, as the multiplications are really made. The "
                   "reason lies in where the weights are."),
            Option("small", "Small layers are computed less efficiently",
                   "That may cost time, but here we count operations, and they are exact. Think of how "
                   "often one weight is used "
                   "for one image."))),
    Question(
        id="0.q4", workshop=True,
        prompt="You want this layer to answer sooner at batch 1. By the roofline, what helps?",
        options=(
            Option("bytes", "Fewer bytes per weight, decoded on the way from memory to the processor",
                   "Yes: at batch 1 the layer waits for its weights, so a quarter of the bytes can mean up "
                   "to four times the speed, "
                   "with the same number of operations. This is why large language models are stored in 4 "
                   "bits.", correct=True),
            Option("mask", "90 % of the weights set to zero, in the same dense matrix",
                   "Nothing changes: the same bytes are read and the same products computed, most of them "
                   "with zero. Zeros help only "
                   "where they are neither stored nor read."),
            Option("peak", "A processor with twice the peak, on the same memory",
                   "At batch 1 the point lies on the slope, left of the ridge: the processor waits for the "
                   "memory already. "
                   "Twice the peak would help at batch 256."),
            Option("batch", "A larger batch",
                   "That raises the images per second, because they share one pass over the weights. But "
                   "the first answer comes no "
                   "sooner: each batch takes at least as long as a single image."))),
)

PREDICTIONS = (
    Prediction(
        id="0.p1", unit="%",
        prompt="Two networks, measured on 10,000 images, differ by the small amount printed above. You now "
               "test both on only 500 of "
               "these images, drawn at random, again and again. In how many of 100 such tests does the "
               "worse network come out "
               "*ahead or level*?"),
    Prediction(
        id="0.p2", log=True, workshop=True,
        prompt="80 % of the weights of LeNet-300-100 are zero, and you save the others as PyTorch's sparse "
               "tensors. How many times smaller "
               "is the file?"),
    Prediction(
        id="0.p3", log=True,
        prompt="SqueezeNet has about 49 times fewer parameters than AlexNet. How many times fewer "
               "multiply-accumulates does it need per "
               "image?"),
    Prediction(
        id="0.p4", log=True, workshop=True,
        prompt="A batch of 256 needs 256 times as many operations as a single image. How many times longer "
               "does this layer take for it?"),
)
